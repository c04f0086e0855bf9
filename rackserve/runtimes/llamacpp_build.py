"""How llama.cpp is built for each backend: what cmake is told, beside what holds for all builds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.domain.llamacpp import BackendPackages

# The toolkit's libraries are found where they were built with, by themselves and by each other: rpath, not runpath,
# which holds for the program alone. llama.cpp's build guide sets it likewise for a toolkit of its own folder.
_RPATH = ("-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A build's own words.

    name: tells builds apart that must not take each other's place; part of the release's name. options: of cmake.
    environment: NAME=VALUE. setup: a file that bash reads before the compiler can be used.
    """

    name: str = ""
    options: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    setup: str = ""


CPU_RECIPE = Recipe()


def recipe(needs: BackendPackages, targets: tuple[str, ...]) -> Recipe:
    """How to build for a backend of the catalogue and the GPUs of these targets ("8.6", "gfx1100"), in order.

    Raises ValueError for a backend that is not built.
    """
    prefix = needs.prefix or ""
    # One build for all GPUs where their drivers compile the kernels.
    name = f"{needs.backend}{needs.toolkit or ''}"
    per_gpu = "-".join((name, *targets))
    if needs.backend == "cuda":
        return Recipe(per_gpu, _cuda(prefix, targets))
    if needs.backend == "rocm":
        return Recipe(per_gpu, _rocm(prefix, targets), (f"ROCM_PATH={prefix}", f"HIP_PATH={prefix}"))
    if needs.backend == "vulkan":
        return Recipe(name, ("-DGGML_VULKAN=ON",))
    if needs.backend == "sycl":
        return Recipe(name, _sycl(prefix, needs.toolkit or "latest"), setup=f"{prefix}/setvars.sh")
    raise ValueError(f"llama.cpp is not built for {needs.backend}")


def _cuda(prefix: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    # Machine code for the host's cards alone: a driver that is older than the toolkit translates no PTX, and code for
    # all cards takes hours to build. llama.cpp makes 120a of 120 by itself.
    architectures = ";".join(f"{target.replace('.', '')}-real" for target in targets)
    return (
        "-DGGML_CUDA=ON",
        f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
        f"-DCMAKE_CUDA_COMPILER={prefix}/bin/nvcc",
        f"-DCUDAToolkit_ROOT={prefix}",
        # Else it is linked where the building host happens to have it. llama.cpp's releases are made without it.
        "-DGGML_CUDA_NCCL=OFF",
        # Not GGML_STATIC: it makes the whole program static, which libcuda, part of the driver, does not allow.
        f"-DCMAKE_INSTALL_RPATH={prefix}/lib64",
        *_RPATH,
    )


def _rocm(prefix: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    return (
        "-DGGML_HIP=ON",
        "-DHIP_PLATFORM=amd",
        f"-DGPU_TARGETS={';'.join(targets)}",
        f"-DCMAKE_HIP_COMPILER={prefix}/lib/llvm/bin/clang++",
        f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DCMAKE_INSTALL_RPATH={prefix}/lib;{prefix}/lib/rocm_sysdeps/lib",
        *_RPATH,
    )


def _sycl(prefix: str, toolkit: str) -> tuple[str, ...]:
    libraries = ";".join(f"{prefix}/{part}/lib" for part in (f"compiler/{toolkit}", f"mkl/{toolkit}", "tbb/latest"))
    return (
        "-DGGML_SYCL=ON",
        "-DCMAKE_C_COMPILER=icx",
        "-DCMAKE_CXX_COMPILER=icpx",
        # oneDNN is numbered apart from the compiler: whichever is there would be linked.
        "-DGGML_SYCL_DNN=OFF",
        f"-DCMAKE_INSTALL_RPATH={libraries}",
        *_RPATH,
    )
