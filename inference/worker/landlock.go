// landlock.go: the Landlock ruleset of a worker, made in the core: which files the kernel lets it read.
package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What may be done with a file, and with a folder and all that is in it.
const (
	landlockRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockFile  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	landlockDrive = landlockRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// landlockABI is the newest ABI of which this code knows all: 7 brought nothing but records of what was refused.
const landlockABI = 7

// probeLandlock is the ABI that the kernel offers, or an error that says why it offers none.
func probeLandlock() (abi int, err error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno { //nolint:exhaustive // any other is told as it is
	case 0:
		return int(n), nil
	case unix.ENOSYS:
		return 0, errors.New("this kernel has no Landlock (Linux 5.13 and newer have it)")
	case unix.EOPNOTSUPP:
		return 0, errors.New("this kernel has Landlock turned off (its command line's lsm= does not name landlock)")
	case unix.EPERM, unix.EACCES:
		return 0, errors.New("a filter of system calls around inferd refuses Landlock")
	}
	return 0, fmt.Errorf("this kernel does not tell its Landlock: %w", errno)
}

// handled are the accesses to files that a kernel of this ABI can refuse. Whatever is handled and not allowed is refused.
func handled(abi int) uint64 {
	access := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1) // all that the first one had
	if abi >= 2 {
		access |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		access |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		access |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return access
}

// ruleset is a Landlock ruleset while it is made.
type ruleset struct {
	fd     int
	access uint64 // handled
}

// newRuleset makes a ruleset that refuses everything that a kernel of this ABI can refuse. The caller closes its descriptor.
func newRuleset(abi int) (*ruleset, error) {
	attr := struct{ files, net, scoped uint64 }{files: handled(abi)}
	size := unsafe.Sizeof(attr.files) // as much as the kernel knows
	if abi >= 4 {
		attr.net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size += unsafe.Sizeof(attr.net)
	}
	if abi >= 6 {
		attr.scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size += unsafe.Sizeof(attr.scoped)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("make a Landlock ruleset: %w", errno)
	}
	return &ruleset{int(fd), attr.files}, nil
}

// allow lets path, and what is below it, be used so. What is not there, or not to be had, is passed over: then it cannot be used either.
func (r *ruleset) allow(path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= landlockFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access & r.access, Parent_fd: int32(fd)}
	if attr.Allowed_access == 0 {
		return nil
	}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("allow %s: %w", path, errno)
	}
	return nil
}

// systemReads are what libc, the dynamic linker, the Go runtime and TensorFlow read of a machine. None of it is anybody's secret.
// /proc/self is added by the worker, which alone can name it.
var systemReads = []string{
	"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", // libraries that are opened late
	"/etc/localtime", "/usr/share/zoneinfo",
	"/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/version", "/proc/filesystems", "/proc/sys/vm/overcommit_memory",
	"/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/sys/kernel/mm/hugepages",
	"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom",
}

// deviceReads are what a GPU's driver and CUDA read beside that, and deviceDrives what they open for writing: the device's nodes. Each may be a pattern.
var (
	deviceReads = []string{
		"/sys", "/proc/driver", "/proc/devices", "/proc/modules", "/proc/sys/vm", "/usr/share/nvidia", "/etc/nvidia*", "/etc/nv_tegra_release",
		"/usr/local/cuda*", "/opt/nvidia", "/etc/OpenCL",
	}
	deviceDrives = []string{
		"/dev/nvidia*", "/dev/nvhost*", "/dev/nvmap", "/dev/nvgpu", "/dev/nvsciipc", "/dev/dri", "/dev/host1x*", "/dev/null", "/dev/zero",
	}
)

// libraryReads are the folders from which the TensorFlow library at path brings its own: beside it, and where Python packages keep them.
func libraryReads(path string, devices bool) (dirs []string) {
	if path == "" {
		return nil
	}
	places := []string{path}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		places = append(places, real)
	}
	for _, p := range places {
		dir := filepath.Dir(p)
		dirs = append(dirs, dir, filepath.Join(filepath.Dir(dir), "tensorflow.libs"))
		if devices {
			dirs = append(dirs, filepath.Join(filepath.Dir(dir), "nvidia"))
		}
	}
	for dir := range strings.SplitSeq(os.Getenv("LD_LIBRARY_PATH"), ":") {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// rules makes the ruleset of a process that may read the version folders dirs. The caller closes the descriptor.
func (s *Sandbox) rules(library string, dirs []string, devices bool) (fd int, err error) {
	r, err := newRuleset(min(s.kernel.Landlock, landlockABI))
	if err != nil {
		return -1, err
	}
	reads := append(libraryReads(library, devices), systemReads...)
	if exe, err := os.Executable(); err == nil {
		reads = append(reads, exe) // for names in the stack of a crash
	}
	var drives []string
	if devices {
		reads = append(append(reads, matching(deviceReads)...), linkerDirs(linkerConfig, 0)...)
		drives = matching(deviceDrives)
	}
	for _, path := range append(reads, dirs...) {
		err = errors.Join(err, r.allow(path, landlockRead))
	}
	for _, path := range drives {
		err = errors.Join(err, r.allow(path, landlockDrive))
	}
	for _, dir := range dirs { // a rule that was passed over would be a riddle in the log
		if _, e := os.Stat(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		_ = unix.Close(r.fd)
		return -1, err
	}
	return r.fd, nil
}

const linkerConfig = "/etc/ld.so.conf"

// linkerDirs are the folders in which the dynamic linker looks beside its own, by its configuration: a GPU's driver lies in one of them.
func linkerDirs(config string, depth int) (dirs []string) {
	text, err := os.ReadFile(config)
	if err != nil || depth > 3 || len(text) > 1<<20 {
		return nil // there is none, or it is no such file
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if patterns, ok := strings.CutPrefix(line, "include"); ok {
			for pattern := range strings.FieldsSeq(patterns) {
				if !filepath.IsAbs(pattern) {
					pattern = filepath.Join(filepath.Dir(config), pattern)
				}
				for _, file := range matching([]string{pattern}) {
					dirs = append(dirs, linkerDirs(file, depth+1)...)
				}
			}
		} else if filepath.IsAbs(line) && filepath.Clean(line) != "/" {
			dirs = append(dirs, line)
		}
	}
	return dirs
}

func matching(patterns []string) (paths []string) {
	for _, p := range patterns {
		found, _ := filepath.Glob(p) // a pattern that is none matches nothing
		paths = append(paths, found...)
	}
	return paths
}
