"""Load an engine: by a known name, from a module, or from a file."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from sampler.engines.base import Engine, EngineError, EngineInfo
from sampler.errors import MissingPackage, SamplerError


def load_engine(name: str, known: dict[str, Callable[[], Engine]]) -> Engine:
    """Load an engine by known name, `package.module:factory` or `path/to/file.py:factory`.

    The factory is a callable without arguments, or the engine itself: an object, a function or a module with an `info`.
    Raises EngineError with the known names if nothing is found or the factory fails.
    """
    if name in known:
        return known[name]()
    module_name, colon, factory_name = name.rpartition(":")
    if not colon or not module_name:
        raise EngineError(f"{name!r} is no engine", hint=f"known: {', '.join(known)}; or file.py:factory")
    factory = getattr(_import(module_name), factory_name, None)
    if not isinstance(factory, type) and _is_engine(factory):
        return factory
    if not callable(factory):
        raise EngineError(
            f"{module_name} has no factory {factory_name!r}",
            hint="expected a callable without arguments, or an object whose info is an EngineInfo",
        )
    try:
        engine = factory()
        if _is_engine(engine):
            return engine
    except SamplerError:
        raise
    except (Exception, SystemExit) as error:
        raise EngineError(
            f"{name} failed: {type(error).__name__}: {error}", hint="call it in Python to see where"
        ) from error
    raise EngineError(f"{name} gave a {type(engine).__name__}", hint="expected an object whose info is an EngineInfo")


def _is_engine(value: object) -> TypeGuard[Engine]:
    """A module with an `info` is an engine too."""
    return isinstance(value, Engine) and isinstance(value.info, EngineInfo)


def _import(name: str) -> Any:
    """Import a module by name, or a file, with the current folder on the path, and a file's own folder too."""
    path = Path(name).resolve()
    places = [str(path.parent), str(Path.cwd())] if name.endswith(".py") else [str(Path.cwd())]
    sys.path.extend(place for place in places if place not in sys.path)
    try:
        return _import_file(path) if name.endswith(".py") else importlib.import_module(name)
    except SamplerError:
        raise
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise EngineError(
                f"there is no module {error.name!r}", hint="give module:factory or file.py:factory"
            ) from error
        raise MissingPackage(f"engine {name} needs {error.name}", hint=f"pip install {error.name}") from error
    except (Exception, SystemExit) as error:
        raise EngineError(
            f"{name} cannot be imported: {type(error).__name__}: {error}", hint="check the path"
        ) from error


def _import_file(path: Path) -> Any:
    """Run a file as a module with a unique name, since an adapter may be called `torch.py`."""
    name = f"sampler_engine_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look up their module
    specification.loader.exec_module(module)
    return module
