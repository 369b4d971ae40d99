// sandbox.go: what a worker is confined to. The worker's own side is inference/tfrt/sandbox.c.
package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
)

// EnvConfine is set in the environment of a worker that is started afresh, to what it is to be confined to; see inference/tfrt/sandbox.h.
const EnvConfine = "INFERD_CONFINE"

// What of inference/tfrt/sandbox.h a worker is told.
const (
	confined        = 1
	confinedFiles   = 2
	confinedDevices = 4
	// exitUnconfined is a worker's exit status when it could not be confined.
	exitUnconfined = 71
)

// Sandbox confines workers: their files by Landlock, their system calls by seccomp. It is immutable.
type Sandbox struct {
	places Places
	kernel Confinement
}

// Places are where a version's folder may not be, for the rule that opens it to the model would open what is there. They are asked for each
// process. Nil: nowhere.
type Places struct {
	// Secret are files and folders that no version's folder may be, hold or lie in.
	Secret func() []string
	// Models are folders that hold versions, so that no version's folder may be or hold one. A version may lie in one of them although
	// it lies in a Secret too.
	Models func() []string
}

// NewSandbox looks at what this kernel has.
func NewSandbox(p Places) *Sandbox {
	none := func() []string { return nil }
	if p.Secret == nil {
		p.Secret = none
	}
	if p.Models == nil {
		p.Models = none
	}
	return &Sandbox{places: p, kernel: ProbeConfinement()}
}

// Confinement is what a kernel has to confine a process with.
type Confinement struct {
	Landlock   int    // ABI; 0: none
	NoLandlock string // why there is none
	Seccomp    bool
}

// Full reports whether a model is kept from the files of others and from the rest of the machine.
func (c Confinement) Full() bool { return c.Landlock > 0 && c.Seccomp }

// String says it for people.
func (c Confinement) String() string {
	switch {
	case c.Full():
		return fmt.Sprintf("Landlock ABI %d and seccomp", c.Landlock)
	case c.Seccomp:
		return "seccomp alone, for " + c.NoLandlock
	case c.Landlock > 0:
		return fmt.Sprintf("Landlock ABI %d alone, for this kernel has no seccomp filters", c.Landlock)
	default:
		return "nothing, for " + c.NoLandlock + ", and no seccomp filters"
	}
}

// ProbeConfinement asks this kernel. It changes nothing.
func ProbeConfinement() (c Confinement) {
	abi, err := probeLandlock()
	if c.Landlock = abi; err != nil {
		c.NoLandlock = err.Error()
	}
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	c.Seccomp = errno == 0
	return c
}

// confinement is what one process is told: the bits, and the ruleset or -1.
type confinement struct {
	what  int32
	rules int
}

func (c confinement) close() {
	if c.rules >= 0 {
		_ = unix.Close(c.rules)
	}
}

// confine makes the confinement of a process. The caller closes it. A nil Sandbox confines nothing, and so does a kernel
// without seccomp.
func (s *Sandbox) confine(library string, opts *processOptions) (confinement, error) {
	c := confinement{rules: -1}
	if s == nil || !s.kernel.Seccomp {
		return c, nil
	}
	c.what = confined
	if opts.devices {
		c.what |= confinedDevices
	}
	if s.kernel.Landlock > 0 {
		for _, dir := range opts.dirs {
			if err := s.admits(dir); err != nil {
				return c, err
			}
		}
		var err error
		if c.rules, err = s.rules(library, slices.Concat(opts.dirs, opts.shared), opts.devices); err != nil {
			return c, fmt.Errorf("confine a worker: %w", err)
		}
		c.what |= confinedFiles
	}
	return c, nil
}

// admits refuses a folder whose rule would open more than a version.
func (s *Sandbox) admits(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the load will say so
	}
	if err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "%s is not opened to the model: it %s; copy the version into a folder of its own",
			dir, fmt.Sprintf(format, args...))
	}
	if entries, err := os.ReadDir(real); err == nil {
		for _, e := range entries {
			other := filepath.Join(real, e.Name(), "saved_model.pb")
			if _, err := strconv.ParseUint(e.Name(), 10, 63); err == nil && exists(other) {
				return refuse("holds another version, %s", filepath.Join(real, e.Name()))
			}
		}
	}
	within := false
	for _, m := range s.places.Models() {
		m = resolved(m)
		if below(m, real) {
			return refuse("is or holds %s, where other versions lie", m)
		}
		within = within || below(real, m)
	}
	for _, secret := range s.places.Secret() {
		secret = resolved(secret)
		if below(secret, real) {
			return refuse("is or holds %s, which is inferd's own", secret)
		}
		if below(real, secret) && !within {
			return refuse("lies in %s, which is inferd's own", secret)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// resolved is path without symbolic links, as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// below reports whether path is dir or lies in it.
func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// explain says in the error of a confined model why it may not do what it tried.
func explain(err error) error {
	e := inference.AsError(err)
	if e.Code != inference.PermissionDenied || strings.Contains(e.Msg, sandboxHint) {
		return err
	}
	explained := *e
	explained.Msg = strings.TrimRight(e.Msg, "\n. ") + "; " + sandboxHint
	return &explained
}

const sandboxHint = "a model may read nothing but its own version folder and write no file (runtime.sandbox)"

func (c confinement) env() []string {
	if c.what == 0 {
		return nil
	}
	return []string{EnvConfine + "=" + strconv.Itoa(int(c.what))}
}
