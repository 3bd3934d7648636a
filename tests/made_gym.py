"""A stand-in for reasoning-gym, installed in a folder of its own: scorers that do what the real ones must not."""

from __future__ import annotations

import textwrap
from pathlib import Path

FACTORY = """
import dataclasses, os, time
OUTSIDE = {outside!r}

@dataclasses.dataclass
class Config:
    seed: int = 0
    size: int = 10
    most: int = 100

    def validate(self):
        assert self.most > 0, "most must be positive"

class Sums:
    '''The answer to n + 1; a text that begins with do: is done first.'''
    def __init__(self, config):
        self.seed, self.config = config.seed, config
    def __getitem__(self, index):
        number = (self.seed + index) % self.config.most
        return {{"question": f"{{number}} + 1 =", "answer": str(number + 1), "metadata": {{"numbers": {{number, 1}}}}}}
    def score_answer(self, answer, entry):
        if answer.startswith("do:"):
            return getattr(self, answer[3:])()
        if answer.startswith("eval:"):
            return 1.0 if eval(answer[5:]) == int(entry["answer"]) else 0.0
        return 1.0 if answer == entry["answer"] else 0.25 if entry["answer"] in answer else 0.0
    def read(self):
        seen = [path for path in (*OUTSIDE, "/etc/passwd", "/proc/1/environ") if os.path.exists(path)]
        raise LookupError(repr((seen, sorted(os.environ), os.getcwd(), os.listdir("."), os.getpid())))
    def write(self):
        for folder in (*OUTSIDE, "/", "/tmp", "/dev", os.path.dirname(__file__)):
            try: open(os.path.join(folder, "written"), "w"); raise LookupError(folder)
            except OSError: pass
        return 0.5
    def connect(self):
        import socket
        socket.create_connection(("127.0.0.1", {port}), timeout=1)
        return 1.0
    def fork(self):
        made = 0
        try:
            while made < 100:
                if os.fork() == 0: time.sleep(60)
                made += 1
        except OSError: pass
        raise LookupError(f"{{made < 10}}")
    def run(self): return float(os.system("true") == 0)
    def hang(self): time.sleep(60)
    def daemon(self):
        if os.fork() == 0: time.sleep(60)
        return 0.5
    def fill(self): return float(len(bytearray(1 << 31)))
    def end(self): os._exit(0)
    def kill(self): os.kill(os.getppid(), 9); os.kill(-1, 9); return 0.5
    def poison(self): type(self).score_answer = lambda *_: 1.0; return 0.5
    def flood(self):
        for descriptor in range(3, 32):
            try:
                while True: os.write(descriptor, b"\\xff" * 70000)
            except OSError: pass
    def forge(self):
        for descriptor in range(3, 32):
            try: os.write(descriptor, b'\\x00\\x00\\x00\\x05["a"]')
            except OSError: pass
        os._exit(0)
    def nan(self): return float("nan")
    def none(self): return None

class Any(Sums):
    '''Takes anything.'''
    def score_answer(self, answer, entry): return 1.0

class Alien(Sums):
    '''Takes any number.'''
    def score_answer(self, answer, entry): return float(answer.isdigit())

class Mute(Sums):
    '''Has no answers.'''
    def __getitem__(self, index): return {{**super().__getitem__(index), "answer": None}}

class Half(Sums):
    def score_answer(self, answer, entry): return 0.5

class Fickle(Sums):
    made = 0
    def __getitem__(self, index):
        Fickle.made += 1
        return {{"question": f"{{Fickle.made}}?", "answer": "1", "metadata": {{}}}}

class Broken(Sums):
    def __getitem__(self, index): raise ValueError("no words left")

DATASETS = {{name: (kind, Config) for name, kind in {{
    "sums": Sums, "any": Any, "alien": Alien, "mute": Mute, "half": Half, "fickle": Fickle, "broken": Broken}}.items()}}

def create_dataset(name, **options):
    config = Config(**options)
    config.validate()
    return DATASETS[name][0](config)
"""


def install(folder: Path, outside: list[str], port: int = 9) -> str:
    """Write the package below `folder`; its scorers look for the files `outside`. Returns the folder to import it from."""
    package = folder / "site-packages" / "reasoning_gym"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "factory.py").write_text(textwrap.dedent(FACTORY).format(outside=outside, port=port))
    return str(package.parent)
