#!/usr/bin/env python3
"""Runs a program on an emulated x86-64 CPU: EMULATED_CPU=arrow_lake x86run.py PROGRAM ARGUMENT...

For test programs with instructions that this machine lacks, and for CPUs that lack what this machine has. The CPU is
the one of Bochs (the wheel bochscpu-python, with cpu_model.so beside this file). There is no kernel: the Linux system
calls that a test program makes are answered here. So the program must be static, has one thread (libtest is told so)
and no children. The exit status is the program's, or 128 + the signal that Linux would have sent: 132 for an
instruction that the model does not have, 139 for memory that is not mapped (guard pages work).

How it works: the guest's memory is one block of this process, below 4 GiB, mapped one to one by page tables of 2 MiB
pages, while the emulator itself is given 4 KiB pages when they are first touched, which is where protection is
checked. `syscall` goes to a stub of two instructions: a clflush, which a hook catches, and a sysret.
"""

import ctypes
import errno
import mmap
import os
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
model = ctypes.CDLL(os.path.join(HERE, "cpu_model.so"), mode=ctypes.RTLD_GLOBAL)
import bochscpu  # noqa: E402
import bochscpu.memory as pages  # noqa: E402

wheel = ctypes.CDLL(sys.modules["bochscpu._bochscpu"].__file__)
model.cpu_model_wheel(ctypes.c_void_p(wheel._handle))

PAGE = 4096
TABLES, STUB = 0x1000, 0x9000  # page tables (6 pages used), system call entry
MMAP, STACK, STACK_SIZE, END = 0x4000_0000, 0xE000_0000, 8 << 20, 0xF000_0000
NONE, USED = 0, 8  # a page's state: NONE, or USED plus its PROT_ bits
SIGILL, SIGFPE, SIGSEGV = 4, 8, 11


class Stop(Exception):
    """The program is over."""


def up(n):
    return (n + PAGE - 1) & -PAGE


def signed(n):
    return ctypes.c_int(n & 0xFFFF_FFFF).value


def segment(selector, attributes, base=0):
    s = bochscpu.Segment()
    s.present, s.selector, s.base, s.limit, s.attr = True, selector, base, 0xFFFF_FFFF, attributes
    return s


class Memory:
    def __init__(self):
        no_reserve = 0x4000  # MAP_NORESERVE, which the module mmap does not name
        self.block = mmap.mmap(-1, END, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
        self.host = ctypes.addressof(ctypes.c_char.from_buffer(self.block))
        self.state = bytearray(END // PAGE)
        self.given = bytearray(END // PAGE)  # which pages the emulator has been given

    def write(self, at, data):
        self.block[at : at + len(data)] = data

    def read(self, at, size):
        return self.block[at : at + size]

    def string(self, at):
        return self.block[at : self.block.find(b"\0", at)]

    def protect(self, at, size, protection):
        first, last = at // PAGE, up(at + size) // PAGE
        self.state[first:last] = bytes([USED | protection]) * (last - first)
        if not protection:
            self.take(first, last)

    def unmap(self, at, size):
        first, last = at // PAGE, up(at + size) // PAGE
        self.state[first:last] = bytes(last - first)
        self.take(first, last)
        if last > first:
            self.block.madvise(mmap.MADV_DONTNEED, first * PAGE, (last - first) * PAGE)

    def take(self, first, last):
        page = self.given.find(1, first, last)
        while page >= 0:
            pages.page_remove(page * PAGE)
            self.given[page] = 0
            page = self.given.find(1, page + 1, last)

    def give(self, page):
        pages.page_insert(page * PAGE, self.host + page * PAGE)
        self.given[page] = 1

    def touch(self, at):
        """Gives the emulator the page at `at`; False where the program may not go there."""
        if at >= END or not self.state[at // PAGE] & 7:
            return False
        self.give(at // PAGE)
        return True

    def build_tables(self):
        table = lambda n: TABLES + n * PAGE
        self.write(table(0), struct.pack("<Q", table(1) | 7))
        self.write(table(1), struct.pack("<4Q", *(table(2 + g) | 7 for g in range(4))))
        for g in range(4):
            self.write(table(2 + g), struct.pack("<512Q", *((g << 30 | i << 21) | 0x87 for i in range(512))))
        self.write(STUB, b"\x0f\xae\x3c\x25" + struct.pack("<I", STUB) + b"\x48\x0f\x07")
        for page in (*range(TABLES // PAGE, TABLES // PAGE + 6), STUB // PAGE):
            self.give(page)


class Program:
    def __init__(self, path, arguments, environment):
        self.path = os.path.realpath(path)
        self.memory = Memory()
        self.memory.build_tables()
        self.next_mmap, self.scratch = MMAP, None
        self.status, self.death = None, None
        self.load()
        self.fill_stack(arguments, environment)

    def load(self):
        with open(self.path, "rb") as f:
            elf = f.read()
        if elf[:5] != b"\x7fELF\x02" or elf[18:20] != b"\x3e\0":
            sys.exit(f"x86run: {self.path} is not a program for x86-64")
        kind = struct.unpack_from("<H", elf, 16)[0]
        entry, table = struct.unpack_from("<QQ", elf, 24)
        self.header_size, self.headers = struct.unpack_from("<HH", elf, 54)
        base = 0x40_0000 if kind == 3 else 0
        self.entry, self.header_at, end = base + entry, 0, 0
        for i in range(self.headers):
            what, _, offset, at, _, size, memory_size, _ = struct.unpack_from("<IIQQQQQQ", elf, table + i * self.header_size)
            if what == 3:
                sys.exit(f"x86run: {self.path} is not static (-C target-feature=+crt-static)")
            if what == 1:
                at += base
                self.memory.protect(at & -PAGE, memory_size + at % PAGE, 7)
                self.memory.write(at, elf[offset : offset + size])
                end = max(end, at + memory_size)
                if offset <= table < offset + size:
                    self.header_at = at + table - offset
        self.heap = self.heap_end = up(end)

    def fill_stack(self, arguments, environment):
        m, self.rsp = self.memory, STACK - 64
        m.protect(STACK - STACK_SIZE, STACK_SIZE, 3)

        def push(data):
            self.rsp -= len(data)
            m.write(self.rsp, data)
            return self.rsp

        random, path = push(os.urandom(16)), push(os.fsencode(self.path) + b"\0")
        argv = [push(os.fsencode(a) + b"\0") for a in arguments]
        env = [push(os.fsencode(f"{k}={v}") + b"\0") for k, v in environment.items()]
        # AT_PHDR, PHENT, PHNUM, PAGESZ, ENTRY, the four ids, CLKTCK, SECURE, RANDOM, EXECFN, the end
        auxiliary = {3: self.header_at, 4: self.header_size, 5: self.headers, 6: PAGE, 9: self.entry, 11: 0, 12: 0,
                     13: 0, 14: 0, 17: 100, 23: 0, 25: random, 31: path, 0: 0}  # fmt: skip
        words = [len(argv), *argv, 0, *env, 0, *(w for pair in auxiliary.items() for w in pair)]
        self.rsp = (self.rsp - 8 * len(words)) & -16
        m.write(self.rsp, struct.pack(f"<{len(words)}Q", *words))

    def die(self, signal, why):
        if self.status is None:
            self.status, self.death = 128 + signal, why

    def run(self):
        self.session = session = bochscpu.Session()
        session.missing_page_handler = self.missing_page
        state = bochscpu.State()
        state.seed = 1
        state.cr0, state.cr3, state.efer, state.xcr0 = 0x8005_0033, TABLES, 0xD01, 0xE7
        state.cr4 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18  # PAE, SSE, FSGSBASE, XSAVE
        state.star, state.lstar, state.sfmask = 0x23 << 48 | 0x08 << 32, STUB, 0
        state.mxcsr, state.mxcsr_mask, state.fpcw, state.fptw, state.rflags = 0x1F80, 0xFFFF, 0x37F, 0xFFFF, 0x202
        state.cs = segment(0x33, 0xA0FB)
        state.ds = state.es = state.ss = state.fs = state.gs = segment(0x2B, 0xC0F3)
        state.rip, state.rsp = self.entry, self.rsp
        session.cpu.state = state
        hook = bochscpu.Hook()
        hook.exception = self.exception
        hook.clflush = lambda session, cpu, linear, physical: self.system_call(session) if linear == STUB else None
        session.run([hook])
        sys.stdout.flush()
        if self.death:
            print(f"x86run: {self.death}", file=sys.stderr)
        return 125 if self.status is None else self.status

    def missing_page(self, at):
        if self.memory.touch(at):
            return
        self.die(SIGSEGV, f"no access to {at:#x}, at rip {self.session.cpu.rip:#x}")
        self.scratch = self.scratch or pages.allocate_host_page()  # the emulator must be given something
        pages.page_insert(at & -PAGE, self.scratch)
        self.session.stop()

    def exception(self, session, cpu, vector, code):
        rip = session.cpu.rip
        signal = {0: SIGFPE, 6: SIGILL, 16: SIGFPE, 19: SIGFPE}.get(vector, SIGSEGV)
        self.die(signal, f"exception {vector} ({code}) at rip {rip:#x}: {self.memory.read(rip, 12).hex(' ')}")
        session.stop()

    def system_call(self, session):
        cpu = session.cpu
        handler = CALLS.get(cpu.rax)
        try:
            result = handler(self, cpu.rdi, cpu.rsi, cpu.rdx, cpu.r10, cpu.r8, cpu.r9) if handler else -errno.ENOSYS
        except OSError as e:
            result = -e.errno
        except Stop:
            session.stop()
            result = 0
        cpu.rax = (result or 0) & 0xFFFF_FFFF_FFFF_FFFF


CALLS = {}


def call(*numbers):
    def register(f):
        CALLS.update(dict.fromkeys(numbers, f))
        return f

    return register


# sigaction, sigprocmask, sched_yield, sleeps, fcntl, prctl, sigaltstack, set_robust_list: nothing to do. Ids are 0.
@call(13, 14, 24, 35, 72, 102, 104, 107, 108, 131, 157, 230, 273)
def nothing(p, *_):
    return 0


@call(39, 186, 218)
def getpid(p, *_):
    return os.getpid()


@call(56)
def clone(p, *_):
    return -errno.EAGAIN


@call(16)
def ioctl(p, *_):
    return -errno.ENOTTY


@call(0)
def read(p, fd, to, size, *_):
    data = os.read(signed(fd), size)
    p.memory.write(to, data)
    return len(data)


@call(17)
def pread(p, fd, to, size, at, *_):
    data = os.pread(signed(fd), size, at)
    p.memory.write(to, data)
    return len(data)


@call(1)
def write(p, fd, data, size, *_):
    return os.write(signed(fd), p.memory.read(data, size))


@call(20)
def writev(p, fd, vectors, count, *_):
    parts = [struct.unpack("<QQ", p.memory.read(vectors + 16 * i, 16)) for i in range(count)]
    return os.write(signed(fd), b"".join(p.memory.read(*part) for part in parts))


@call(2)
def open_(p, path, flags, mode, *_):
    return os.open(p.memory.string(path), flags, mode)


@call(257)
def openat(p, directory, path, flags, mode, *_):
    return os.open(p.memory.string(path), flags, mode)


@call(3)
def close(p, fd, *_):
    os.close(signed(fd))


@call(8)
def lseek(p, fd, offset, whence, *_):
    return os.lseek(signed(fd), ctypes.c_long(offset).value, whence)


@call(83)
def mkdir(p, path, mode, *_):
    os.mkdir(p.memory.string(path), mode)


@call(84)
def rmdir(p, path, *_):
    os.rmdir(p.memory.string(path))


@call(87)
def unlink(p, path, *_):
    os.unlink(p.memory.string(path))


def put_stat(p, s, to):
    times = (int(s.st_atime), 0, int(s.st_mtime), 0, int(s.st_ctime), 0)
    head = (s.st_dev, s.st_ino, s.st_nlink, s.st_mode, s.st_uid, s.st_gid, 0, s.st_rdev, s.st_size, s.st_blksize, s.st_blocks)
    p.memory.write(to, struct.pack("<QQQIIIIQQQQ6Q24x", *head, *times))


@call(5)
def fstat(p, fd, to, *_):
    put_stat(p, os.fstat(signed(fd)), to)


@call(262)
def newfstatat(p, fd, path, to, flags, *_):
    name = p.memory.string(path)
    put_stat(p, os.stat(name) if name else os.fstat(signed(fd)), to)


@call(79)
def getcwd(p, to, *_):
    name = os.getcwdb() + b"\0"
    p.memory.write(to, name)
    return len(name)


@call(89)
def readlink(p, path, to, size, *_):
    name = p.memory.string(path)
    target = os.fsencode(p.path) if name == b"/proc/self/exe" else os.readlink(name)
    p.memory.write(to, target[:size])
    return len(target[:size])


@call(267)
def readlinkat(p, directory, path, to, size, *_):
    return readlink(p, path, to, size)


@call(7)
def poll(p, fds, count, *_):
    for i in range(count):  # all that was asked for is ready
        p.memory.write(fds + 8 * i + 6, p.memory.read(fds + 8 * i + 4, 2))
    return count


@call(9)
def mmap_(p, at, size, protection, flags, fd, offset):
    size = up(size)
    if not size:
        return -errno.EINVAL
    if flags & 0x10:  # MAP_FIXED
        p.memory.unmap(at, size)
    else:
        # Addresses are never used twice, so nothing that the emulator remembers of them can be stale.
        at, p.next_mmap = p.next_mmap, p.next_mmap + size + PAGE
    if max(at + size, p.next_mmap) > STACK - 2 * STACK_SIZE:
        return -errno.ENOMEM
    p.memory.protect(at, size, protection & 7)
    if not flags & 0x20:  # MAP_ANONYMOUS
        p.memory.write(at, os.pread(signed(fd), size, offset))
    return at


@call(10)
def mprotect(p, at, size, protection, *_):
    p.memory.protect(at, size, protection & 7)


@call(11)
def munmap(p, at, size, *_):
    p.memory.unmap(at, size)


@call(25)
def mremap(p, old, old_size, size, *_):
    if size <= old_size:
        return old
    new = mmap_(p, 0, size, 3, 0x22, -1, 0)
    if new > 0:
        p.memory.write(new, p.memory.read(old, old_size))
        p.memory.unmap(old, old_size)
    return new


@call(12)
def brk(p, at, *_):
    if p.heap <= at < MMAP:
        if at > p.heap_end:
            p.memory.protect(p.heap_end, at - p.heap_end, 3)
        p.heap_end = at
    return p.heap_end


@call(28)
def madvise(p, at, size, advice, *_):
    if advice == 4:  # MADV_DONTNEED: reads as zeros from now on
        ctypes.memset(p.memory.host + at, 0, size)


@call(158)
def arch_prctl(p, code, at, *_):
    if code != 0x1002:  # ARCH_SET_FS
        return -errno.EINVAL
    p.session.cpu.fs = segment(0x2B, 0xC0F3, at)


@call(63)
def uname(p, to, *_):
    names = (b"Linux", b"x86run", b"6.1.0", b"#1", b"x86_64", b"")
    p.memory.write(to, b"".join(name.ljust(65, b"\0") for name in names))


@call(302)
def prlimit(p, pid, resource, new, old, *_):
    if old:
        p.memory.write(old, struct.pack("<QQ", STACK_SIZE if resource == 3 else 1024, (1 << 64) - 1))


@call(204)
def sched_getaffinity(p, pid, size, to, *_):
    p.memory.write(to, struct.pack("<Q", 1))
    return 8


@call(228)
def clock_gettime(p, clock, to, *_):
    now = time.clock_gettime_ns(clock if clock < 12 else time.CLOCK_MONOTONIC)
    p.memory.write(to, struct.pack("<qq", *divmod(now, 10**9)))


@call(318)
def getrandom(p, to, size, *_):
    p.memory.write(to, os.urandom(size))
    return size


@call(202)
def futex(p, word, operation, value, *_):
    if operation & 0x7F not in (0, 9):  # not a wait
        return 0
    if struct.unpack("<I", p.memory.read(word, 4))[0] != value & 0xFFFF_FFFF:
        return -errno.EAGAIN
    p.status, p.death = 125, "the one thread there is waits for another"
    raise Stop


@call(60, 231)
def exit_(p, status, *_):
    p.status = status & 0xFF
    raise Stop


@call(62, 200)
def kill(p, pid, signal, *_):
    p.die(signal, f"signal {signal} raised")
    raise Stop


@call(234)
def tgkill(p, group, thread, signal, *_):
    kill(p, thread, signal)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LD_")}
    environment["RUST_TEST_THREADS"] = "1"
    sys.stdout.flush()
    os._exit(Program(sys.argv[1], sys.argv[1:], environment).run())


main()
