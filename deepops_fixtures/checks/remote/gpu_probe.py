"""What the driver's own libraries say of a node's GPUs, and whether the GPUs compute.

    python3 - look        what NVML counts (libnvidia-ml.so.1)
    python3 - compute 4   a kernel with a checked result and a copy within the memory on each GPU;
                          then 4 seconds of load on all of them, during which nvidia-smi reports

It prints one line of JSON after the mark 'GPU-PROBE '; an error of CUDA or NVML is in it by its
name. No toolkit is needed: the kernel is PTX, which the driver compiles. Sources: CUDA Driver API
Reference, NVML API Reference, PTX ISA.
"""

import array
import ctypes
import glob
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List

MARK = "GPU-PROBE "
CONTAINER = "/run/nvidia/driver"
#: Numbers that are added; bytes of a copy within the memory, of one over PCIe.
COUNT, LOCAL, OVER = 1 << 18, 512 << 20, 64 << 20
ROUNDS, THREADS = 20, 256
#: CUdevice_attribute: memory clock in kHz, width of the memory's bus in bits.
CLOCK, WIDTH = 36, 37
PTX = b"""
.version 5.0
.target sm_30
.address_size 64

.visible .entry add(
    .param .u64 left, .param .u64 right, .param .u64 sum, .param .u32 count)
{
    .reg .pred %past;
    .reg .b32 %n<8>;
    .reg .b64 %at<5>;

    ld.param.u64 %at1, [left];
    ld.param.u64 %at2, [right];
    ld.param.u64 %at3, [sum];
    ld.param.u32 %n1, [count];
    mov.u32 %n2, %ctaid.x;
    mov.u32 %n3, %ntid.x;
    mov.u32 %n4, %tid.x;
    mad.lo.u32 %n5, %n2, %n3, %n4;
    setp.ge.u32 %past, %n5, %n1;
    @%past bra DONE;
    mul.wide.u32 %at4, %n5, 4;
    add.u64 %at1, %at1, %at4;
    add.u64 %at2, %at2, %at4;
    add.u64 %at3, %at3, %at4;
    ld.global.u32 %n6, [%at1];
    ld.global.u32 %n7, [%at2];
    add.u32 %n6, %n6, %n7;
    st.global.u32 [%at3], %n6;
DONE:
    ret;
}
\0"""


class Refused(Exception):
    """A library's function returned an error; the text is its name and meaning."""


def library(name: str) -> Any:
    """Load a library of the driver, also from the GPU operator's driver container."""
    paths = [name, *sorted(glob.glob(f"{CONTAINER}/usr/lib*/**/{name}", recursive=True))]
    said = ""
    for path in paths:
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            said = said or str(error)
    raise Refused(f"{name} cannot be loaded: {said}")


# -- NVML -------------------------------------------------------------------------------------


def look(nvml: Any) -> Dict[str, Any]:
    """Return the driver's version and the GPUs as NVML counts them."""
    nvml.nvmlErrorString.restype = ctypes.c_char_p

    def call(name: str, *arguments: Any) -> None:
        code = getattr(nvml, name)(*arguments)
        if code:
            text = nvml.nvmlErrorString(code)
            raise Refused(f"{name}: {(text or b'?').decode()} ({code})")

    call("nvmlInit_v2")
    try:
        version, count = ctypes.create_string_buffer(96), ctypes.c_uint()
        call("nvmlSystemGetDriverVersion", version, ctypes.c_uint(96))
        call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found: List[Dict[str, str]] = []
        for index in range(count.value):
            device, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(96)
            try:
                call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
                call("nvmlDeviceGetUUID", device, uuid, ctypes.c_uint(96))
                found.append({"uuid": uuid.value.decode(), "error": ""})
            except Refused as error:
                found.append({"uuid": "", "error": str(error)})
        return {"driver_version": version.value.decode(), "gpus": found, "error": ""}
    finally:
        nvml.nvmlShutdown()


# -- CUDA -------------------------------------------------------------------------------------


class Cuda:
    """The CUDA driver: a function is called by its name, an error becomes Refused."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises Refused with the error's name."""
        code = getattr(self._loaded, name)(*arguments)
        if code:
            raise Refused(f"{name}: {self._meaning(code)}")

    def _meaning(self, code: int) -> str:
        name, text = ctypes.c_char_p(), ctypes.c_char_p()
        self._loaded.cuGetErrorName(code, ctypes.byref(name))
        self._loaded.cuGetErrorString(code, ctypes.byref(text))
        known = (name.value or b"error").decode()
        return f"{known} ({code}): {(text.value or b'').decode()}"

    def integer(self, name: str, *arguments: Any) -> int:
        """Return the number that a function writes to its first argument."""
        value = ctypes.c_int()
        self(name, ctypes.byref(value), *arguments)
        return value.value


def attempt(work: Callable[[], None]) -> str:
    """Return the error that a piece of work ends with, '' for none."""
    try:
        work()
    except Refused as error:
        return str(error)
    return ""


class Card:
    """One GPU with its context, and the memory that was taken on it."""

    def __init__(self, cuda: Cuda, index: int) -> None:
        self.cuda = cuda
        self.device = cuda.integer("cuDeviceGet", index)
        self._taken: List[ctypes.c_uint64] = []
        self._context = ctypes.c_void_p()

    def address(self) -> str:
        """Return its address on the PCI bus, '0000:07:00.0'."""
        text = ctypes.create_string_buffer(32)
        self.cuda("cuDeviceGetPCIBusId", text, 32, self.device)
        return text.value.decode().lower()

    def name(self) -> str:
        """Return its product's name."""
        text = ctypes.create_string_buffer(128)
        self.cuda("cuDeviceGetName", text, 128, self.device)
        return text.value.decode()

    def __enter__(self) -> "Card":
        self.cuda("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self.device)
        self.cuda("cuCtxSetCurrent", self._context)
        return self

    def __exit__(self, *_: object) -> None:
        # After a failed kernel these fail too; the first error is the one that counts.
        while self._taken:
            attempt(lambda: self.cuda("cuMemFree_v2", self._taken.pop()))
        attempt(lambda: self.cuda("cuDevicePrimaryCtxRelease", self.device))

    def take(self, size: int) -> ctypes.c_uint64:
        """Return so many bytes of the GPU's memory."""
        place = ctypes.c_uint64()
        self.cuda("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(size))
        self._taken.append(place)
        return place

    def room(self) -> int:
        """Return how many bytes of the memory are free."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.cuda("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def add(self) -> str:
        """Add two rows of numbers in a kernel; return what is wrong with the sums, '' if
        nothing."""
        left = array.array("I", ((i * 2654435761) & 0xFFFFFFFF for i in range(COUNT)))
        right = array.array("I", ((i ^ 0x5BD1E995) & 0xFFFFFFFF for i in range(COUNT)))
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.cuda("cuModuleLoadData", ctypes.byref(module), PTX)
        self.cuda("cuModuleGetFunction", ctypes.byref(function), module, b"add")
        size = 4 * COUNT
        places = [self.take(size) for _ in range(3)]
        for place, numbers in zip(places, (left, right)):
            self.cuda("cuMemcpyHtoD_v2", place, numbers.tobytes(), ctypes.c_size_t(size))
        values = [*places, ctypes.c_uint32(COUNT)]
        pointers = [ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values]
        kernel = (ctypes.c_void_p * 4)(*pointers)
        grid = [(COUNT + THREADS - 1) // THREADS, 1, 1, THREADS, 1, 1]
        self.cuda("cuLaunchKernel", function, *grid, 0, None, kernel, None)
        self.cuda("cuCtxSynchronize")
        back = ctypes.create_string_buffer(size)
        self.cuda("cuMemcpyDtoH_v2", back, places[2], ctypes.c_size_t(size))
        got = array.array("I", back.raw)
        wrong = [i for i in range(COUNT) if got[i] != (left[i] + right[i]) & 0xFFFFFFFF]
        return f"{len(wrong)} of {COUNT} sums, first at {wrong[0]}" if wrong else ""

    def pair(self) -> List[Any]:
        """Return two places of one size and that size, a quarter of the free memory at most."""
        size = min(LOCAL, self.room() // 4) & ~0xFFFFF
        return [self.take(size), self.take(size), size]

    def bandwidth(self) -> float:
        """Return GB/s of the memory, measured by copies within it: each byte is read and
        written."""
        source, target, size = self.pair()
        begin, end = ctypes.c_void_p(), ctypes.c_void_p()
        self.cuda("cuEventCreate", ctypes.byref(begin), 0)
        self.cuda("cuEventCreate", ctypes.byref(end), 0)
        self.copy(target, source, size, ROUNDS)
        self.cuda("cuCtxSynchronize")
        self.cuda("cuEventRecord", begin, None)
        self.copy(target, source, size, ROUNDS)
        self.cuda("cuEventRecord", end, None)
        self.cuda("cuEventSynchronize", end)
        took = ctypes.c_float()
        self.cuda("cuEventElapsedTime", ctypes.byref(took), begin, end)
        return float(2 * size * ROUNDS / (took.value * 1e6))

    def copy(self, target: Any, source: Any, size: int, rounds: int) -> None:
        """Copy within the memory so many times."""
        for _ in range(rounds):
            self.cuda("cuMemcpyDtoD_v2", target, source, ctypes.c_size_t(size))

    def load(self, seconds: float) -> None:
        """Keep memory and PCIe busy for so long."""
        source, target, size = self.pair()
        host = ctypes.create_string_buffer(OVER)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            over = ctypes.c_size_t(min(OVER, size))
            self.cuda("cuMemcpyHtoD_v2", source, host, over)
            self.copy(target, source, size, 4)
            self.cuda("cuMemcpyDtoH_v2", host, target, over)
            self.cuda("cuCtxSynchronize")


def measure(cuda: Cuda, index: int) -> Dict[str, Any]:
    """Return what one GPU did: the kernel's result, the memory's bandwidth, or the error."""
    found: Dict[str, Any] = {"address": "", "name": "", "wrong": "", "bandwidth": 0.0, "peak": 0.0}

    def peak(card: Card) -> None:
        clock, width = (
            cuda.integer("cuDeviceGetAttribute", a, card.device) for a in (CLOCK, WIDTH)
        )
        # Two transfers a clock; kHz times bytes.
        found["peak"] = 2 * clock * (width / 8) / 1e6

    def work() -> None:
        card = Card(cuda, index)
        found["address"], found["name"] = card.address(), card.name()
        attempt(lambda: peak(card))
        with card:
            found["wrong"] = card.add()
        with card:
            found["bandwidth"] = card.bandwidth()

    found["error"] = attempt(work)
    return found


def under_load(
    cuda: Cuda, count: int, seconds: float, report: Callable[[], str]
) -> Dict[str, Any]:
    """Return nvidia-smi's reports while all GPUs are busy, and the errors of those that failed."""
    errors: List[str] = []

    def busy(index: int) -> None:
        def work() -> None:
            with Card(cuda, index) as card:
                card.load(seconds)

        said = attempt(work)
        if said:
            errors.append(f"CUDA device {index}: {said}")

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    reports = []
    time.sleep(min(1.0, seconds / 2))
    while any(thread.is_alive() for thread in threads):
        text = report()
        # A report that was finished after the load ended may show idle GPUs.
        if all(thread.is_alive() for thread in threads):
            reports.append(text)
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    return {"reports": reports, "errors": errors}


def compute(cuda: Cuda, seconds: float, report: Callable[[], str]) -> Dict[str, Any]:
    """Return what every GPU did, and the reports under load."""
    cuda("cuInit", 0)
    count = cuda.integer("cuDeviceGetCount")
    cards = [measure(cuda, index) for index in range(count)]
    load = under_load(cuda, count, seconds, report) if count and seconds else {}
    return {
        "gpus": cards,
        "reports": load.get("reports", []),
        "load_errors": load.get("errors", []),
        "error": "",
    }


def smi_report() -> str:
    """Return nvidia-smi's report without the long list of clocks, or why there is none."""
    inside = os.access(CONTAINER + "/usr/bin/nvidia-smi", os.X_OK)
    command = ["chroot", CONTAINER] if inside else []
    try:
        done = subprocess.run(
            [*command, "nvidia-smi", "-q", "-x"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return re.sub(r"<supported_clocks>.*?</supported_clocks>", "", done.stdout, flags=re.DOTALL)


def alone(seconds: float) -> Any:
    """Wait until no other probe runs on this node; two would share what they measure."""
    turn = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + seconds
    while True:
        try:
            turn.bind("\0deepops-gpu-probe")
            return turn
        except OSError:
            if time.monotonic() > end:
                raise Refused(f"another probe has been running for {seconds:.0f} s") from None
            time.sleep(0.2)


def main(arguments: List[str]) -> Dict[str, Any]:
    """Do what the first argument says and return the findings."""
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    try:
        if arguments[0] == "look":
            return look(library("libnvidia-ml.so.1"))
        turn = alone(240)
        try:
            return compute(Cuda(library("libcuda.so.1")), float(arguments[1]), smi_report)
        finally:
            turn.close()
    except (Refused, AttributeError) as error:
        return {"gpus": [], "error": str(error)}


if __name__ == "__main__":
    print(MARK + json.dumps(main(sys.argv[1:])))
