#!/usr/bin/env bash
# test-gpu.sh: serve, swap, memory back and out-of-memory on this machine's NVIDIA GPU (tools/gpucheck has the checks). LIBTENSORFLOW names a
# directory with a TensorFlow that was built for GPUs. It ends within 10 minutes and wants the GPU for itself.
#
# Exit code 0: every check passed, or there is no GPU here, which the last line says. 1: a check failed, or could not be made.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}

"$GO" build -o build/gpucheck ./tools/gpucheck
found=0
build/gpucheck -list || found=$?
case $found in
0) ;;
3)
	echo "test-gpu: NOT RUN: this machine shows no NVIDIA GPU. Nothing about GPUs was checked."
	exit 0
	;;
*)
	echo "test-gpu: NOT RUN: this machine has an NVIDIA device whose driver does not answer as it should. Nothing about GPUs was checked."
	exit 1
	;;
esac

if [ -z "${LIBTENSORFLOW:-}" ]; then
	# shellcheck source=packaging/pins.env
	. packaging/pins.env
	cat <<-MISSING
		test-gpu: NOT RUN: there is a GPU, and no TensorFlow for it; what 'make runtime' fetches is built for the CPU. Nothing about GPUs was checked.
		Make one and name it (about 3 GB):
		  python3 -m venv build/gpu && build/gpu/bin/pip install 'tensorflow[and-cuda]==$TENSORFLOW_VERSION'
		  LIBTENSORFLOW=\$(echo "\$PWD"/build/gpu/lib/python3*/site-packages/tensorflow) make test-gpu
	MISSING
	exit 1
fi
# A wheel's CUDA libraries lie in wheels beside it.
for lib in "$LIBTENSORFLOW"/../nvidia/*/lib; do
	if [ -d "$lib" ]; then LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; fi
done
if [ -n "${LD_LIBRARY_PATH:-}" ]; then export LD_LIBRARY_PATH; fi

"$GO" build -o build/gpucheck-inferd ./cmd/inferd # never an older one that lies there
exec timeout --kill-after=20 600 build/gpucheck -inferd build/gpucheck-inferd -runtime "$LIBTENSORFLOW"
