"""The mutants that mutmut makes of four folders, and what each of them changes."""

import hashlib
import re
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import unified_diff
from io import StringIO
from multiprocessing import cpu_count
from pathlib import Path

import libcst
from mutmut.__main__ import create_mutants
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import read_functions_from_index
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files
from mutmut.utils.format_utils import parse_mutant_key

# Mutmut's own name for the copy of the project that holds all mutants.
COPY = Path("mutants")
PACKAGE = "later_reporting_dagster"


def made() -> dict[str, list[str]]:
    """Brings the copy of the project up to date, and names its mutants by folder."""
    COPY.mkdir(exist_ok=True)
    set_mutant_under_test("mutant_generation")
    with redirect_stdout(StringIO()):
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(cpu_count())
    mutants: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        mutants[path.parts[1]] += data.exit_code_by_key
    return dict(mutants)


def digest_of(folder: str) -> str:
    """Tells one state of a folder's code from another."""
    digest = hashlib.sha256()
    for path in sorted(Path(PACKAGE, folder).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Mutation:
    """What a mutant changes: in which file of the package, in which function of it, and what becomes what."""

    file: str
    function: str
    before: str
    after: str

    @classmethod
    def of(cls, mutant: str) -> "Mutation":
        """Reads a mutant back by mutmut's name for it."""
        module, _, name = mutant.rpartition(".")
        path = Path(module.replace(".", "/") + ".py")
        path = path if path.exists() else path.parent / path.stem / "__init__.py"
        function, of_class = parse_mutant_key(re.sub(r"__mutmut_\d+$", "", name))
        functions = read_functions_from_index(mutant, path)
        assert functions is not None, f"mutmut's copy of {path} does not have {mutant}"
        before, after = (libcst.Module([each]).code.splitlines() for each in functions)
        changed = [line for line in unified_diff(before, after, lineterm="", n=0)][2:]
        return cls(
            file=path.relative_to(PACKAGE).as_posix(),
            function=f"{of_class}.{function}" if of_class else function,
            before=_joined(changed, "-"),
            after=_joined(changed, "+"),
        )


def _joined(changed: list[str], sign: str) -> str:
    return " ".join(line[1:].strip() for line in changed if line.startswith(sign))
