__version__ = "0.2.0"

_HOMES = dict(Lifter="lifter", DiffHPE="models", GraphLifter="models", MixSTE="mixste", load_checkpoint="checkpoints",
              load_released="released", load_dataset="datasets", Experiment="config") # name → module


def __getattr__(name):
    "The names that most users need, imported when they are asked for."
    if name not in _HOMES: raise AttributeError(f"module 'diffhpe' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"diffhpe.{_HOMES[name]}"), name)


def __dir__(): return sorted([*globals(), *_HOMES])
