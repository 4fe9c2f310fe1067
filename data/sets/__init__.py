"""The data sets, one module each: this folder is the list of them.

To add a set, add a module to this folder, named as its users will name it. Its docstring shows a real row; it declares
`SET`, a `data.dataset.DataSet`, with the set's place on the hub, the function from a row to a question, and how the set
is scored where that is special. `svamp` is a short one to begin from. Nothing else names the set: the configuration
accepts each name that is found here. A list of worked examples of its own, `data/exemplars/<name>.yaml`, is optional.
"""

from pkgutil import iter_modules
from typing import TYPE_CHECKING, Literal, TypeAlias

# In this order the first sets are listed and enter the hash of the prompts; whatever came later follows by name.
_FIRST = (
    *("svamp", "gsm8k", "asdiv", "singleeq", "multiarith", "addsub", "aqua", "commonsenseqa", "strategyqa"),
    *("synthetic", "jsonl", "csv"),
)


def names() -> tuple[str, ...]:
    """The name of every data set; no module is loaded for it."""
    found = {module.name for module in iter_modules(__path__)}
    return (*(name for name in _FIRST if name in found), *sorted(found.difference(_FIRST)))


if TYPE_CHECKING:
    DatasetName: TypeAlias = str
else:
    DatasetName = Literal[names()]
