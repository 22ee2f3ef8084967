"""A process that answers requests: lines of JSON on its standard input and output. Its first line says its version, or what is missing."""

import json
import os
import subprocess


def channel():
    """Of the process that answers: a function that says something to the one who asks. What libraries print is not for it, and goes to
    standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=out, flush=True)

    return say


class Process:
    """Of the one who asks."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        started = self.heard()
        self.missing, self.version = started.get("missing"), started.get("version")

    def heard(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"missing": f"it ended with status {self.process.wait()}"}

    def asked(self, **request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self.heard()

    def ended(self):
        """It has nothing to lose, and large libraries take seconds to end by themselves."""
        self.process.kill()
        self.process.communicate()
