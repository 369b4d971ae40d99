// doctor.go: what `inferd doctor` says about this machine.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/device"
	"github.com/inferd/inferd/inference/tfrt"
)

// DoctorOptions say how closely to look. Zero means default.
type DoctorOptions struct {
	// OpenRuntime opens the library in a process of its own and returns TensorFlow's version; nil does not open it.
	OpenRuntime func(ctx context.Context, library string) (version string, err error)
}

// Doctor looks at everything that serving with cfg needs. It opens each port for a moment, and no model. A running inferd is asked what
// it holds; nothing is changed.
func Doctor(ctx context.Context, cfg *config.Config, opts DoctorOptions) *CheckReport {
	d := &doctor{report: &CheckReport{OK: true}, cfg: cfg}
	d.runtime(ctx, opts.OpenRuntime)
	d.cpu()
	d.gpu(ctx)
	d.memory()
	d.report.put(newConfinement(d.cfg).finding())
	d.control(ctx)
	d.port("listen.grpc", cfg.Listen.GRPC, func(s *control.Status) string { return s.GRPC })
	d.port("listen.http", cfg.Listen.HTTP, func(s *control.Status) string { return s.HTTP })
	d.tokens()
	d.permissions()
	return d.report
}

// doctor is one look at the machine.
type doctor struct {
	report  *CheckReport
	cfg     *config.Config
	running *control.Status // of the inferd that runs already; nil when none answers
}

func (d *doctor) say(severity, what, format string, args ...any) {
	d.report.add(severity, what, format, args...)
}

func (d *doctor) runtime(ctx context.Context, open func(context.Context, string) (string, error)) {
	chosen, err := findRuntime(d.cfg)
	var found tfrt.Found
	if err == nil {
		found, err = tfrt.Find(d.cfg.Runtime.Library)
		if chosen.library != found.Path { // one of those that lie side by side
			found, err = tfrt.Found{Path: chosen.library, From: "version " + RuntimeInUse(chosen.library)}, nil
		}
		if chosen.note != "" {
			d.say(FindingWarning, "runtime", "%s", chosen.note)
		}
	}
	if err != nil {
		d.say(FindingWrong, "runtime", "%v", err)
		return
	}
	where := fmt.Sprintf("%s (%s)", found.Path, found.From)
	if open == nil {
		d.say(FindingOK, "runtime", "%s; --load opens it and tells its version", where)
	} else if version, err := open(ctx, found.Path); err != nil {
		d.say(FindingWrong, "runtime", "%s cannot be opened: %v", where, err)
	} else {
		d.say(FindingOK, "runtime", "TensorFlow %s, %s", version, where)
	}
	for _, t := range found.Refused {
		if _, err := os.Stat(t.Place); errors.Is(err, fs.ErrNotExist) {
			continue // one of the places where it may lie, and does not
		}
		d.say(FindingWarning, "runtime", "passed over %s: %s", t.Place, t.Why)
	}
}

func (d *doctor) cpu() {
	cores := fmt.Sprintf("%s, %d cores", runtime.GOARCH, runtime.NumCPU())
	if n := runtime.GOMAXPROCS(0); n != runtime.NumCPU() {
		cores += fmt.Sprintf(" of which %d may be used", n) // a cgroup's quota, or GOMAXPROCS
	}
	switch has, missing := tfrt.CPUFlags(runtime.GOARCH); {
	case has == nil:
		d.say(FindingWarning, "cpu", "%s; /proc/cpuinfo cannot be read, so its instructions are not known", cores)
	case len(missing) > 0:
		d.say(FindingWrong, "cpu", "%s, without %s, which TensorFlow's own builds need; a build for this CPU says so in a file cpu-flags beside it", cores, strings.Join(missing, ", "))
	default:
		d.say(FindingOK, "cpu", "%s, %s", cores, strings.Join(notable(has), " "))
	}
}

// notable are the flags that decide how fast TensorFlow is.
func notable(has []string) (flags []string) {
	for _, f := range []string{"avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "asimddp", "bf16", "sve"} {
		if slices.Contains(has, f) {
			flags = append(flags, f)
		}
	}
	return flags
}

func (d *doctor) gpu(ctx context.Context) {
	found, err := newGPUs(d.cfg.Runtime, nil, nil).driver.GPUs(ctx)
	hidden, _ := os.LookupEnv("CUDA_VISIBLE_DEVICES")
	for _, f := range gpuFindings(d.cfg.Runtime.GPU, found, hidden, err) {
		d.report.put(f)
	}
}

// gpuFindings are about the devices that workers would see, and about where a small model would go.
func gpuFindings(cfg config.GPU, gpus []device.GPU, hidden string, err error) (found []Finding) {
	say := func(severity, format string, args ...any) {
		found = append(found, Finding{Severity: severity, Subject: "gpu", Message: fmt.Sprintf(format, args...)})
	}
	if err == nil && len(gpus) == 0 {
		if hidden != "" {
			say(FindingOK, "none that CUDA_VISIBLE_DEVICES=%s shows: models run on the CPU", hidden)
		} else {
			say(FindingOK, "none: models run on the CPU")
		}
		return found
	}
	for _, g := range gpus {
		say(FindingOK, "%v", g)
	}
	p := device.Place(device.Request{NeedBytes: device.Need(0, 0), Growth: true, Fraction: cfg.MemoryFraction, Named: device.Ordinals(cfg.VisibleDevices)}, gpus, nil, err)
	if p.Fallback {
		say(FindingWarning, "models run on the CPU all the same: %s", p.Reason)
	}
	return found
}

// control finds out whether an inferd runs already.
func (d *doctor) control(ctx context.Context) {
	path := d.cfg.FindControlSocket()
	if n := len(path); n > control.MaxPath {
		d.say(FindingWrong, "listen.control", "%s has %d bytes, and a unix socket's path at most %d; name a shorter one with --listen.control", path, n, control.MaxPath)
		return
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		d.say(FindingOK, "listen.control", "%s: no inferd runs", path)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c := control.Dial(path)
	defer c.Close()
	s, err := c.Status(ctx)
	switch {
	case err == nil:
		d.running = s
		d.say(FindingOK, "listen.control", "%s: inferd %s runs, pid %d", path, s.Version, s.PID)
	case errors.Is(err, unix.ECONNREFUSED):
		d.say(FindingOK, "listen.control", "%s was left behind by an inferd that was killed, and will be replaced", path)
	default:
		d.say(FindingWarning, "listen.control", "%v", err)
	}
}

func (d *doctor) port(key, address string, held func(*control.Status) string) {
	if address == "" {
		d.say(FindingOK, key, "off")
		return
	}
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		_ = l.Close()
		d.say(FindingOK, key, "%s is free", address)
	case errors.Is(err, unix.EADDRINUSE) && d.running != nil && samePort(held(d.running), address):
		d.say(FindingOK, key, "%s is held by the inferd that runs", address)
	case errors.Is(err, unix.EADDRINUSE):
		d.say(FindingWrong, key, "%s is in use by something else; stop that, or choose another address", address)
	case errors.Is(err, unix.EACCES):
		d.say(FindingWrong, key, "this user may not open %s; ports below 1024 need CAP_NET_BIND_SERVICE", address)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		d.say(FindingWrong, key, "%s is no address of this machine", address)
	default:
		d.say(FindingWrong, key, "%v", err)
	}
}

func samePort(a, b string) bool {
	_, p, errA := net.SplitHostPort(a)
	_, q, errB := net.SplitHostPort(b)
	return errA == nil && errB == nil && p == q
}

func (d *doctor) permissions() {
	who := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		who = fmt.Sprintf("%s (uid %s)", u.Username, u.Uid)
	}
	d.say(FindingOK, "user", "this was asked as %s", who)
	if dir := d.cfg.ModelsDir; dir != "" {
		if _, err := os.ReadDir(dir); err != nil {
			d.say(FindingWrong, "models_dir", "%v; make it and let this user read it, or name another with --models-dir", err)
		} else {
			d.say(FindingOK, "models_dir", "%s can be read", dir)
		}
	}
	for _, m := range d.cfg.Models {
		if _, err := os.ReadDir(m.BasePath); err != nil {
			severity := FindingWrong
			if m.Optional {
				severity = FindingWarning
			}
			d.say(severity, "base_path", "model %s: %v", m.Name, err)
		} else {
			d.say(FindingOK, "base_path", "model %s: %s can be read", m.Name, m.BasePath)
		}
	}
	access := func(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
	switch made, err := writable(d.cfg.StateDir, os.Stat, access); {
	case err != nil:
		d.say(FindingWrong, "state_dir", "%v; give it to inferd's user, or name another with --state-dir", err)
	case made:
		d.say(FindingOK, "state_dir", "%s will be made", d.cfg.StateDir)
	default:
		d.say(FindingOK, "state_dir", "%s can be written", d.cfg.StateDir)
	}
	if _, err := writable(filepath.Dir(d.cfg.ControlSocket()), os.Stat, access); err != nil {
		d.say(FindingWrong, "listen.control", "%v; name another place with --listen.control", err)
	}
}

// writable reports whether files can be made in dir, or dir itself can (made). stat and access are those of the system.
func writable(dir string, stat func(string) (fs.FileInfo, error), access func(string) error) (made bool, err error) {
	for p := dir; ; p = filepath.Dir(p) {
		st, err := stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist) && p != filepath.Dir(p):
			made = true
			continue
		case err != nil:
			return false, err
		case !st.IsDir():
			return false, &fs.PathError{Op: "write into", Path: p, Err: unix.ENOTDIR}
		}
		if err := access(p); err != nil {
			return false, &fs.PathError{Op: "write into", Path: p, Err: err}
		}
		return made, nil
	}
}

// memory says which limit is in force, and how much of it models may have.
func (d *doctor) memory() {
	m := d.cfg.Memory
	l := admission.InForce(os.DirFS("/"), int64(m.Limit), int64(m.Reserve))
	if l.Bytes == 0 {
		d.say(FindingWarning, "memory", "%s; write memory.limit, or nothing is held against it", l.Why)
		return
	}
	share := admission.ShareOf(l.Bytes, int64(m.Requests))
	severity, advice := FindingOK, ""
	if l.Bytes < config.MinMemory {
		severity, advice = FindingWarning, fmt.Sprintf("; inferd and TensorFlow alone need %v", config.Bytes(config.MinMemory))
	}
	d.say(severity, "memory", "%s, %s; %s are kept free and requests in flight may have %s%s", gib(l.Bytes), l.Why, gib(l.Reserve), gib(share), advice)
}

// gib is a size in the unit that people buy memory in.
func gib(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
