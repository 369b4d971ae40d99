// main.go: makes inferd's Debian packages out of what was built: `mkdeb -arch amd64 -binary build/inferd ... inferd inferd-runtime-cpu`.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// maintainer stands in every package and changelog.
const maintainer = "The inferd maintainers <maintainers@users.noreply.r-seed-cf5a5070.example>"

// build is what the packages are made of.
type build struct {
	root     string // of the repository
	arch     string // amd64 or arm64, Debian's name and Go's
	version  string // of inferd, as Debian compares them
	time     time.Time
	binary   string
	manual   string // directory that `inferd manual` wrote: man pages and completions
	runtime  string // directory with libtensorflow for arch
	stage    string // directory for files made on the way
	compress string // zstd or xz
	strip    string // command that strips a library of arch
	pins     map[string]string
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	b := build{}
	flags := flag.NewFlagSet("mkdeb", flag.ContinueOnError)
	var epoch int64
	var out string
	flags.StringVar(&b.root, "root", ".", "the repository")
	flags.StringVar(&b.arch, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&b.version, "version", "", "version of inferd; what git describe says is understood")
	flags.Int64Var(&epoch, "epoch", 0, "seconds since 1970 that every file of inferd has as its time")
	flags.StringVar(&b.binary, "binary", "", "inferd, built for arch")
	flags.StringVar(&b.manual, "manual", "", "directory that `inferd manual` wrote")
	flags.StringVar(&b.runtime, "runtime", "", "directory with libtensorflow for arch; for inferd-runtime-gpu with nvidia/*/lib too")
	flags.StringVar(&b.strip, "strip", "strip", "command that strips a library of arch")
	flags.StringVar(&b.compress, "compress", "zstd", "zstd or xz")
	flags.StringVar(&out, "out", "build/deb", "directory for the packages")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	made, err := b.make(flags.Args(), out, epoch)
	for _, path := range made {
		fmt.Println(path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkdeb:", err)
		return 1
	}
	return 0
}

// make writes the named packages into the directory out and returns their paths; with an error, those that were written before it.
func (b *build) make(names []string, out string, epoch int64) (paths []string, err error) {
	if b.arch != "amd64" && b.arch != "arm64" {
		return nil, fmt.Errorf("-arch %s: inferd is packaged for amd64 and arm64", b.arch)
	}
	if b.compress != "zstd" && b.compress != "xz" {
		return nil, fmt.Errorf("-compress %s: packages are compressed by zstd or xz", b.compress)
	}
	if len(names) == 0 {
		return nil, errors.New("name the packages to make: inferd, inferd-runtime-cpu, inferd-runtime-gpu")
	}
	if b.pins, err = readPins(filepath.Join(b.root, "packaging/pins.env")); err != nil {
		return nil, err
	}
	if b.version, err = debianVersion(b.version); err != nil {
		return nil, err
	}
	b.time = time.Unix(epoch, 0).UTC()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	if b.stage, err = os.MkdirTemp(out, ".stage-"); err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(b.stage) }() // what is left of it is swept by make clean
	for _, name := range names {
		var made []*pkg
		switch name {
		case "inferd":
			made, err = b.inferd()
		case "inferd-runtime-cpu":
			made, err = b.runtimePackages("cpu")
		case "inferd-runtime-gpu":
			made, err = b.runtimePackages("gpu")
		default:
			return paths, fmt.Errorf("no package is called %s; inferd, inferd-runtime-cpu and inferd-runtime-gpu are", name)
		}
		if err != nil {
			return paths, fmt.Errorf("%s: %w", name, err)
		}
		for _, p := range made {
			path, err := p.write(out, b.compress)
			if err != nil {
				return paths, fmt.Errorf("%s: %w", p.info.Name, err)
			}
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// debianVersion makes a version that dpkg orders out of git describe's: v1.2.0-14-gabcdef becomes 1.2.0+14.gabcdef. There is no hyphen in
// it, for inferd's packages have no revision of their own.
func debianVersion(v string) (string, error) {
	tag, rest, more := strings.Cut(strings.TrimPrefix(v, "v"), "-")
	if more {
		tag += "+" + strings.ReplaceAll(rest, "-", ".")
	}
	if !versionForm.MatchString(tag) {
		return "", fmt.Errorf("-version %q: a package's version begins with a number and has letters, digits and . + ~ after it", v)
	}
	return tag, nil
}

var versionForm = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`)

// readPins reads NAME=VALUE lines.
func readPins(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pins := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			pins[name] = value
		}
	}
	return pins, nil
}
