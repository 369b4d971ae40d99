// prepare.go: environments and models, each made once.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// prepare makes what is not there yet: the model of the registry, the environments, the models.
func (b *bench) prepare(names []string) error {
	for _, n := range names {
		if !slices.Contains(modelNames, n) {
			return fmt.Errorf("no model is called %q", n)
		}
	}
	if err := os.MkdirAll(b.home, 0o755); err != nil {
		return err
	}
	if err := b.alone(); err != nil {
		return err
	}
	for _, env := range []string{"tensorflow", "triton", "mlserver", "compute"} {
		if err := b.environment(env); err != nil {
			return err
		}
	}
	missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		_, err := os.Stat(filepath.Join(b.home, "models", n, "answers.json"))
		return err == nil
	})
	if len(missing) > 0 {
		if err := b.shell("tools/fetch.sh", "model"); err != nil {
			return err
		}
		args := append([]string{filepath.Join(b.python, "models.py"), filepath.Join(b.home, "models"), "build/models/basic-pitch/1"}, missing...)
		if err := b.shell(b.venv("compute", "python"), args...); err != nil {
			return err
		}
	}
	for _, n := range names {
		m, err := readModel(filepath.Join(b.home, "models", n))
		if err != nil {
			return err
		}
		b.models = append(b.models, m)
	}
	return nil
}

// alone keeps a second run away, which would measure the first, and removes what a killed one left behind.
func (b *bench) alone() error {
	f, err := os.OpenFile(filepath.Join(b.home, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another run is at work in %s", b.home)
	}
	b.lock = f // held until the process ends
	for _, pattern := range []string{"work-*", "models-*", "queue-*"} {
		left, err := filepath.Glob(filepath.Join(b.home, pattern))
		if err != nil {
			return err
		}
		for _, dir := range left {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// shell runs a command whose output is progress.
func (b *bench) shell(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, append(os.Environ(), "TF_CPP_MIN_LOG_LEVEL=2")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %v: %w", name, args, err)
	}
	return nil
}

// environment makes build/peers/env-NAME of requirements/NAME.txt, which pins every package, when it is not there or of other pins.
func (b *bench) environment(name string) error {
	dir, pins := filepath.Join(b.home, "env-"+name), filepath.Join("tools", "peers", "requirements", name+".txt")
	text, err := os.ReadFile(pins)
	if err != nil {
		return err
	}
	python, err := python()
	if err != nil {
		return err
	}
	version, err := exec.Command(python, "--version").Output()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(append(text, version...))
	want, stamp := []byte(hex.EncodeToString(sum[:])+"\n"), filepath.Join(dir, ".complete")
	if have, err := os.ReadFile(stamp); err == nil && bytes.Equal(have, want) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.say("installing %s (some hundred megabytes, once) ...", name)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := b.shell(python, "-m", "venv", dir); err != nil {
		return err
	}
	// Every package that the pins need is among them, and tensorflow-cpu's wheel is there already where the runtime was fetched.
	if err := b.shell(b.venv(name, "pip"), "install", "--disable-pip-version-check", "--no-cache-dir", "--quiet", "--no-deps", "--find-links", "build/wheels", "-r", pins); err != nil {
		return fmt.Errorf("%w; make the package index reachable for pip, and run again", err)
	}
	return os.WriteFile(stamp, want, 0o600)
}

// python is the interpreter that the pins are of.
func python() (string, error) {
	for _, name := range []string{os.Getenv("PYTHON"), "python3.11", "python3.12"} {
		if name == "" {
			continue
		}
		if err := exec.Command(name, "-c", "import venv").Run(); err == nil {
			return name, nil
		}
	}
	return "", errors.New("no Python 3.11 or 3.12 with venv was found; name one with PYTHON=")
}
