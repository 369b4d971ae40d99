// peers: inferd beside the servers that a user could pick instead, and beside the engines below them: same models, same machine, same minutes.
//
//	peers -inferd build/inferd [-quick] [-models mlp,mobilenet] [-only table,rows] [-out docs]
//
// It installs what it compares in environments of its own below build/peers, makes the models, holds every server's answers against
// TensorFlow's own, and only then measures. What was measured is kept as it comes (build/peers/run-peers.jsonl): a run that was cut off goes on
// where it stood. docs/peers.md says how to read what it writes.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance"

	"github.com/inferd/inferd/packaging"
)

// bench is one run of the tool.
type bench struct {
	inferd  string
	flags   []string // more for inferd
	runtime string   // directory of libtensorflow
	home    string   // build/peers
	python  string   // tools/peers/python
	out     string
	quick   bool
	pairs   int
	window  time.Duration // of one cell of the table, and of one side of a pair
	only    []string      // parts
	chosen  []string      // peers
	models  []*model
	store   *store
	began   time.Time

	name  string // of the report
	lock  *os.File
	found map[string]float64 // rates that search has met
}

func main() {
	if code, worker := appliance.Worker(); worker {
		os.Exit(code)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// split is strings.Split, but nothing of nothing.
func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func run() error {
	b := &bench{began: time.Now(), runtime: os.Getenv("LIBTENSORFLOW")}
	if b.runtime == "" {
		b.runtime = filepath.Join("build", "runtime")
	}
	var (
		flags   = flag.String("flags", "", "more flags for inferd, with spaces")
		models  = flag.String("models", strings.Join(modelNames, ","), "models to measure")
		only    = flag.String("only", "", "parts: "+strings.Join(partNames(), ",")+"; all but growth unless set")
		chosen  = flag.String("peers", "", "servers to measure, by name; all unless set")
		seconds = flag.Float64("seconds", 0, "length of one measurement; 3 unless set, 1 with -quick")
		fresh   = flag.Bool("fresh", false, "measure again what an unfinished run has measured")
		child   = flag.String("child", "", "internal: what this process is to be")
	)
	flag.StringVar(&b.inferd, "inferd", "build/inferd", "the binary to measure")
	flag.StringVar(&b.out, "out", filepath.Join("build", "peers", "report"), "folder of the report; docs, for the repository's own")
	flag.BoolVar(&b.quick, "quick", false, "windows of 1 s, and what takes long and tells little left out")
	flag.IntVar(&b.pairs, "pairs", 10, "alternating pairs for each ratio, at least 10 for one that counts")
	flag.Parse()
	switch *child {
	case "":
	case "guard":
		return guard(flag.Args())
	case "bare":
		return bare(flag.Args())
	default:
		return fmt.Errorf("no child is called %q", *child)
	}
	if *seconds == 0 {
		*seconds = 3
		if b.quick {
			*seconds = 1
		}
	}
	b.window, b.flags, b.only, b.chosen = time.Duration(*seconds*float64(time.Second)), strings.Fields(*flags), split(*only), split(*chosen)
	for _, p := range b.only {
		if !slices.Contains(partNames(), p) {
			return fmt.Errorf("no part is called %q; there are %s", p, strings.Join(partNames(), ", "))
		}
	}
	for path, of := range map[*string]string{&b.home: filepath.Join("build", "peers"), &b.python: filepath.Join("tools", "peers", "python"), &b.inferd: b.inferd, &b.runtime: b.runtime} {
		var err error
		if *path, err = filepath.Abs(of); err != nil {
			return err
		}
	}
	if err := b.prepare(split(*models)); err != nil {
		return err
	}
	if b.name = "peers"; *only == "growth" {
		b.name = "growth"
	}
	var err error
	if b.store, err = openStore(filepath.Join(b.home, "run-"+b.name+".jsonl"), b.machine(), *fresh); err != nil {
		return err
	}
	defer b.store.close()
	if len(b.store.entries) == 1 { // a run begins with what inferd has measured forgotten
		if err := os.RemoveAll(filepath.Join(b.home, "state")); err != nil {
			return err
		}
	}
	for _, line := range absent() {
		b.say("%s", line)
	}
	for _, p := range parts {
		if len(b.only) == 0 && p.name == "growth" || len(b.only) > 0 && !slices.Contains(b.only, p.name) {
			continue
		}
		if err := p.run(b); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), b.report())
		}
	}
	if err := b.report(); err != nil {
		return err
	}
	if len(b.only) > 0 && b.name == "peers" {
		return nil // the other parts go on with this run
	}
	return b.store.finish()
}

// parts in the order in which they run.
var parts = []struct {
	name string
	run  func(*bench) error
}{{"table", (*bench).table}, {"rows", (*bench).rows}, {"growth", (*bench).growth}}

func partNames() (all []string) {
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

// say reports progress.
func (b *bench) say(format string, args ...any) {
	fmt.Printf("%6s  %s\n", time.Since(b.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// machine describes where and how the figures were made. A run goes on only where all of it is the same.
func (b *bench) machine() machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Go: runtime.Version(), TensorFlow: cmp.Or(packaging.Pins()["TENSORFLOW_VERSION"], "unknown"), Quick: b.quick, Seconds: b.window.Seconds(), Pairs: b.pairs,
		TFS: os.Getenv("TFS"), OVMS: os.Getenv("OVMS"), Flags: strings.Join(b.flags, " ")}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		for s := bufio.NewScanner(f); s.Scan(); {
			if rest, ok := strings.CutPrefix(s.Text(), "model name\t: "); ok {
				m.CPU = rest
			}
			if rest, ok := strings.CutPrefix(s.Text(), "flags\t"); ok {
				m.AVX512 = strings.Contains(rest, "avx512f")
			}
		}
		_ = f.Close()
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kb); err == nil {
			m.MemoryGB = (kb + 512<<10) >> 20
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	if out, err := exec.Command(b.inferd, "version").Output(); err == nil {
		m.Inferd, _, _ = strings.Cut(string(out), "\n")
	}
	if info, err := os.Stat(b.inferd); err == nil {
		m.Built = info.ModTime().UTC().Format(time.RFC3339)
	}
	return m
}
