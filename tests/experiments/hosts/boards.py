"""A board without processes."""

import threading

from gnomon.experiments.hosts.board import Gone


class Shared:
    """A board of threads, each of which plays a process."""

    def __init__(self):
        self.texts, self.changed = {}, threading.Condition()

    def post(self, key, text):
        with self.changed:
            assert key not in self.texts
            self.texts[key] = text
            self.changed.notify_all()

    def look(self, key):
        return self.texts.get(key)

    def read(self, key, given_up=lambda: False):
        with self.changed:
            while key not in self.texts:
                if given_up():
                    raise Gone(key)
                self.changed.wait(0.02)
        return self.texts[key]
