"""What a stranger installs: the wheel, the environment file, the pinned versions."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import canonical
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = (".py", ".md", ".toml", ".yml", ".txt", ".cfg", ".ipynb", "Makefile")


def requirements() -> list[str]:
    """What running the notebooks takes: the package's own dependencies and the lab's."""
    return PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement).group().lower()


def test_environment_file_agrees_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    expected = [f"python{PROJECT['requires-python']}"]
    expected += [re.sub("^torch(?=[^v])", "pytorch", requirement) for requirement in requirements()]
    assert sorted(listed) == sorted([*expected, "pip"])
    assert environment["dependencies"][-1] == {"pip": ["--editable .[crosscheck]"]}


def test_the_lab_is_part_of_the_test_environment() -> None:
    """And so are the libraries that the outlook chapters are checked against."""
    assert "deepdream-lab[lab,crosscheck,flower,video]" in PROJECT["optional-dependencies"]["test"]


def test_constraints_pin_every_dependency_and_name_no_host() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {name_of(line) for line in text.splitlines() if "==" in line}
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    wanted = {name_of(r) for r in requirements() + extras} - {"deepdream-lab"}
    assert wanted <= pinned
    assert "://" not in text


def test_the_public_address_stands_in_one_place() -> None:
    """Badges and set-up cells are written from it; nothing else may repeat it."""
    address = PROJECT["urls"]["Repository"].removeprefix("https://")
    files = [p for folder in ("labkit", "tests", "tools", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert not [path.name for path in files if address in path.read_text()]


def test_readme_leads_to_the_public_address_and_to_every_notebook() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert canonical.address_readme(text) == text
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in text and f"({canonical.colab()}{path.name})" in text


def test_wheel_dreams_in_an_empty_environment(tmp_path: Path) -> None:
    """Built, installed away from the repository, and run: weights and paintings must travel inside the package."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.stat().st_size < 20e6

    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # Dependencies are borrowed, not installed again. Nested .pth files are not followed, so an editable labkit is not.
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    script = (
        "import labkit as lk; print(lk.__file__);"
        "picture = lk.dream(lk.photo('chelsea', 96), octaves=1, steps=1, progress=False);"
        "lk.save(picture, 'dream.png'); print(len(lk.paintings()))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LABKIT"))}
    done = subprocess.run(
        [str(python), "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, paintings = done.stdout.split()
    assert where.startswith(str(site)) and int(paintings) >= 6
    assert (tmp_path / "dream.png").stat().st_size > 1000


@pytest.mark.parametrize("path", ["Makefile", ".ci/run", "LICENSE", "README.md", "constraints.txt", "environment.yml"])
def test_top_level_files_exist(path: str) -> None:
    assert (ROOT / path).stat().st_size > 0


def test_repository_names_no_registry_and_no_home() -> None:
    """Files that other people read hold no path of one machine and no host of a package registry."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    forbidden = re.compile("|".join(["py" + "pi.org", "python" + "hosted", "/ho" + "me/", "/ro" + "ot/"]))
    listed = [name for name in listed if name.endswith(TEXTS) and not name.startswith("tests/")]  # they look for homes
    texts = [ROOT / name for name in listed if (ROOT / name).exists()]
    found = {path.name: match.group() for path in texts if (match := forbidden.search(path.read_text()))}
    assert not found
