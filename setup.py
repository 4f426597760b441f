"""Packaging entry point: the native modules; everything else is declared in setup.cfg."""

from glob import glob

from setuptools import Extension, setup

FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-sign-compare"]

setup(
    ext_modules=[
        Extension("mpq_worker._image", ["mpq_worker/_image.pyx"], extra_compile_args=FLAGS),
        Extension(
            "mpq_worker._datapath",
            ["mpq_worker/_datapath.pyx", *sorted(glob("mpq_worker/native/*.c"))],
            depends=sorted(glob("mpq_worker/native/*.h")),
            libraries=["crypto"],
            extra_compile_args=FLAGS,
        ),
    ]
)
