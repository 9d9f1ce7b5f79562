"""The options of each command: names, types, bounds, defaults and help texts. One file for each command.

Must not import torch, so that `--help` and completion are fast. They need the options of one command, so each class is
imported on first use.
"""

from typing import TYPE_CHECKING

from vaectl.lazy import attributes
from vaectl.options.option import Option as Option
from vaectl.options.option import cli_name as cli_name
from vaectl.options.option import dump as dump
from vaectl.options.option import names_of as names_of
from vaectl.options.option import options_of as options_of
from vaectl.options.option import parse as parse

if TYPE_CHECKING:
    from vaectl.options.compare import CompareOptions as CompareOptions
    from vaectl.options.eval import EvalOptions as EvalOptions
    from vaectl.options.models import ModelsOptions as ModelsOptions
    from vaectl.options.prepare_eval import PrepareEvalOptions as PrepareEvalOptions
    from vaectl.options.reconstruct import ReconstructOptions as ReconstructOptions
    from vaectl.options.train import TrainOptions as TrainOptions

_HOMES = {
    "CompareOptions": "vaectl.options.compare",
    "EvalOptions": "vaectl.options.eval",
    "ModelsOptions": "vaectl.options.models",
    "PrepareEvalOptions": "vaectl.options.prepare_eval",
    "ReconstructOptions": "vaectl.options.reconstruct",
    "TrainOptions": "vaectl.options.train",
}

__getattr__, _ = attributes(__name__, _HOMES)
