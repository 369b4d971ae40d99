// socket.go: where the operators' socket lies.
package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const socketName = "control.sock"

// ControlSocket is the path of the operators' socket: the configured one, else the first place where this user may write and whose name
// is no longer than a unix socket's may be.
func (c *Config) ControlSocket() string {
	return c.controlSocket(places{env: os.Getenv, writable: func(dir string) bool { return mayWrite(dir) == nil }, makeable: mayMake, private: private,
		temp: os.TempDir(), uid: os.Getuid()})
}

// FindControlSocket is where a client looks: the configured path, else the first of the places of [Config.ControlSocket] where a socket
// lies, for the service may run as another user. Where none lies it is ControlSocket itself.
func (c *Config) FindControlSocket() string {
	anywhere := func(string) bool { return true }
	p := places{env: os.Getenv, writable: anywhere, makeable: anywhere, private: private, temp: os.TempDir(), uid: os.Getuid()}
	return c.findControlSocket(p, isSocket, c.ControlSocket)
}

// FindControlSocket is the same for the configuration in the file, as far as that can be read: whoever asks a running inferd about a file
// with a fault must reach it. An empty path means no file. The error is as that of [Load], and the faults are one only where no socket lies.
func FindControlSocket(path string) (string, error) {
	files, err := readFiles(path)
	if err != nil {
		return "", err
	}
	c, faults := parse(files, nil)
	found := c.FindControlSocket()
	if faults != nil && !isSocket(found) {
		return "", faults
	}
	return found, nil
}

func isSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&fs.ModeSocket != 0
}

func (c *Config) findControlSocket(p places, there func(path string) bool, otherwise func() string) string {
	if c.Listen.Control != "" {
		return c.Listen.Control
	}
	for _, path := range c.socketPlaces(p) {
		if there(path) {
			return path
		}
	}
	return otherwise()
}

// places is what the choice of a path depends on.
type places struct {
	env      func(string) string
	writable func(dir string) bool
	makeable func(dir string) bool // it is writable, or can be made
	private  func(dir string) bool // it is nobody else's
	temp     string
	uid      int
}

func (c *Config) controlSocket(p places) string {
	if c.Listen.Control != "" {
		return c.Listen.Control
	}
	if all := c.socketPlaces(p); len(all) > 0 {
		return all[0]
	}
	return filepath.Join(c.StateDir, socketName) // it cannot be used, and whoever opens it says why
}

// socketPlaces are the paths that can be used, the best first.
func (c *Config) socketPlaces(p places) (paths []string) {
	const run = "/run/inferd"
	if p.writable(run) || p.writable(filepath.Dir(run)) {
		paths = append(paths, filepath.Join(run, socketName))
	}
	if dir := p.env("XDG_RUNTIME_DIR"); dir != "" && p.writable(dir) {
		paths = append(paths, filepath.Join(dir, "inferd", socketName))
	}
	if p.makeable(c.StateDir) {
		paths = append(paths, filepath.Join(c.StateDir, socketName))
	}
	// Anybody may make a folder of that name in a directory for temporary files, and would then be trusted with what operators send.
	if dir := filepath.Join(p.temp, "inferd-"+strconv.Itoa(p.uid)); p.private(dir) {
		paths = append(paths, filepath.Join(dir, socketName))
	}
	short := paths[:0]
	for _, path := range paths {
		if len(path) <= maxSocketPath {
			short = append(short, path)
		}
	}
	return short
}
