"""What is computed: the teacher's rooms, the student's, in the order of the flow, and the mathematics they share."""
