"""Packages imported name by name: the same objects as the usual import gives, from fewer modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str, path: Path | None = None) -> str:
    folder = "" if path is None else f"import sys; sys.path.insert(0, {str(path)!r}); "
    head = "from llama_index_presets.packages.imports_by_name import import_by_name; "
    done = subprocess.run(
        [sys.executable, "-c", folder + head + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A package whose ``__init__`` says when it runs; the module `price` has a function of its own name."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text(
        "print('all run')\nfrom shop.price import price\nfrom shop.stock import Stock as Store\n"
        "handler: object = None\ncount = 0\ndef total(): return price() + count\n"
        "try:\n    from shop.stock import Stock\nexcept ImportError:\n    Stock = None\n"
        "__all__ = ['price', 'Store', 'total']\n"
    )
    (package / "price.py").write_text("print('price run')\ndef price(): return 3\n")
    (package / "stock.py").write_text("print('stock run')\nclass Stock: ...\n")
    return tmp_path


def test_a_name_comes_from_its_own_module_alone(shop: Path) -> None:
    """Neither the package's `__init__` nor the other module runs."""
    assert run("import_by_name('shop'); from shop import Store; print(Store.__name__)", shop) == (
        "stock run\nStock"
    )


def test_a_name_that_the_package_makes_itself_runs_all_of_it_once(shop: Path) -> None:
    """A function, a name bound in two ways, and `__all__` need the `__init__`; afterwards it is a plain module."""
    code = (
        "import_by_name('shop'); import shop; from shop import Store; print(shop.total(), shop.Stock is Store, "
        "shop.__all__, type(shop).__name__)"
    )
    assert run(code, shop) == ("stock run\nall run\nprice run\n3 True ['price', 'Store', 'total'] module")


def test_what_was_set_from_outside_stays(shop: Path) -> None:
    """A constant is read without a run; a value that a program put there is not lost when the `__init__` runs."""
    code = (
        "import_by_name('shop'); import shop; print(shop.handler); shop.handler = 7; "
        "shop.total(); print(shop.handler, shop.count)"
    )
    assert run(code, shop) == "None\nall run\nprice run\nstock run\n7 0"


def test_a_function_that_hides_the_module_of_its_name_still_does(shop: Path) -> None:
    """`from shop import price` is the function, whether or not the module was imported before."""
    code = "import_by_name('shop'); import shop.price; from shop import price; print(price())"
    assert run(code, shop) == "price run\n3"


def test_a_star_import_and_a_missing_name_are_as_usual(shop: Path) -> None:
    """All names of `__all__` arrive; a name that is nowhere is an ImportError."""
    code = (
        "import_by_name('shop')\nfrom shop import *\nprint(total(), Store.__name__)\n"
        "try:\n    from shop import nothing\nexcept ImportError as error: print(error.name)"
    )
    assert run(code, shop) == "all run\nprice run\nstock run\n3 Stock\nshop"


def test_llama_index_gives_the_same_objects() -> None:
    """Every name of the package's own list, by name and after its whole `__init__` ran, is one object."""
    code = (
        "import_by_name('llama_index.core'); import sys, ast, llama_index.core as core; "
        "tree = ast.parse(open(core.__file__).read()); "
        "names = next(ast.literal_eval(s.value) for s in tree.body if isinstance(s, ast.Assign) "
        "and getattr(s.targets[0], 'id', '') == '__all__'); "
        "lazy = {n: getattr(core, n) for n in names if n not in ('SQLContextBuilder',)}; "
        "core.global_handler = 'kept'; core.__all__; "
        "print(type(core).__name__, [n for n in lazy if lazy[n] is not getattr(core, n)], core.global_handler, "
        "len(lazy) > 40)"
    )
    assert run(code) == "module [] kept True"


@pytest.mark.slow("imports all of llama_index.core twice")
@pytest.mark.parametrize("order", ["", "reversed"])
def test_every_module_of_llama_index_can_be_imported_first_to_last(order: str) -> None:
    """Another order of imports meets none of the circles among its modules."""
    code = (
        "import_by_name('llama_index.core'); import importlib, pkgutil, llama_index.core as core\n"
        "def names(path, prefix):\n"
        "    for _, name, package in pkgutil.iter_modules(path, prefix):\n"
        "        yield name\n"
        "        if package: yield from names([path[0] + '/' + name.rpartition('.')[2]], name + '.')\n"
        f"found = list({order}(list(names(list(core.__path__), 'llama_index.core.'))))\n"
        "failed = []\n"
        "for name in found:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        if 'circular' in str(error) or 'llama_index.core' in (error.name or ''): failed.append(str(error))\n"
        "print(len(found) > 300, failed)"
    )
    assert run(code) == "True []"


def test_a_command_answers_without_most_of_llama_index(tmp_path: Path) -> None:
    """A question in a command leaves SQL, workflows and evaluation alone; in other processes all is as usual."""
    code = (
        "import sys; from llama_index_presets.packages.command_process import run_as_command; run_as_command(); "
        "import llama_index_presets.presets.build; "
        "print([m for m in ('sqlalchemy', 'workflows', 'banks', 'llama_index.core.evaluation') if m in sys.modules])"
    )
    assert run(code) == "[]"
    assert run("import sys, llama_index_presets.presets.build; print('sqlalchemy' in sys.modules)") == "True"
