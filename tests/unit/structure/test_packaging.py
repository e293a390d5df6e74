"""What is in the tree is in the wheel, under the names the tree shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.unit.structure.tree import ROOT, package_modules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = (".peft", ".lark", ".typed", ".txt")
SOURCES = {"peftc": "peftc", "grammar": "peftc/grammar", "passes": "peftc/passes"}
BUILT_FROM = (*SOURCES, "pyproject.toml", "README.md", "LICENSE")
LINKS = {"peftc/grammar": "../grammar", "peftc/passes": "../passes"}


def files_of_the_tree() -> set[str]:
    """The files a wheel must hold, by their path in it."""
    return {
        f"{inside}/{path.relative_to(ROOT / folder)}"
        for folder, inside in SOURCES.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", *DATA)
        and not (ROOT / "peftc" / path.relative_to(ROOT / folder).parts[0]).is_symlink()
    }


def declared_packages() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages: list[str] = project["tool"]["setuptools"]["packages"]
    return packages


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, built with no network."""
    copy = tmp_path_factory.mktemp("tree")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation"]
    command += ["--no-deps", "--no-index", "--quiet", "-w", "dist", "."]
    done = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = (copy / "dist").glob("*.whl")
    return made


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_package_of_the_tree_is_declared() -> None:
    packages = [m.name for m in package_modules() if m.path.name == "__init__.py"]
    assert sorted(declared_packages()) == sorted(packages)


def test_no_folder_of_python_lacks_an_init() -> None:
    packages = {m.path.parent for m in package_modules()}
    assert not [str(p) for p in packages if not (p / "__init__.py").exists()]


@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_the_links_resolve(link: str, target: str) -> None:
    path = ROOT / link
    assert path.is_symlink()
    assert path.readlink() == Path(target)
    assert path.resolve() == ROOT / Path(target).name
    assert (path / "__init__.py").is_file()


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    inside = {n for n in names_in(wheel) if ".dist-info/" not in n}
    assert inside == files_of_the_tree()


def test_the_tree_has_grammars_methods_and_its_marker() -> None:
    suffixes = {Path(name).suffix for name in files_of_the_tree()}
    assert set(DATA) <= suffixes


def test_the_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {Path(n).name: n for n in archive.namelist() if ".dist-info/" in n}
        commands = archive.read(info["entry_points.txt"]).decode()
    assert "peftc = peftc.cli.main:main" in commands
    assert "LICENSE" in info


def test_the_wheel_runs_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import peftc.passes, peftc.grammar, peftc\n"
        "print(peftc.passes.__file__)"
    )
    command = (
        [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    )
    done = subprocess.run(
        [*command, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == tmp_path / "peftc" / "passes" / "__init__.py"
