"""SingleEq: one equation with one unknown, whole numbers and decimals (Koncel-Kedziorski et al., TACL 2015).

One JSON array of the same form as MultiArith's:

    {"lEquations": ["0.5 + x = 1.25"], "lSolutions": [0.75], "grammarCheck": 0, "templateNumber": 0,
     "sQuestion": "A jar held 0.5 cups. Now it holds 1.25 cups. How much was added ?", "iIndex": 17}

On the hub lies nothing dependable: what is there under this name is mixed with other sets, split anew, or loaded by a
script.
"""

from data.dataset import published
from data.sets.multiarith import read

SET = published(read=read)
