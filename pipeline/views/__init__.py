"""What there is to look at: records, figures, reports and pages."""
