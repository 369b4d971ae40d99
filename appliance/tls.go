// tls.go: TLS of the doors. The files may be replaced at any time, and are looked at when somebody connects.
package appliance

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"

	"google.golang.org/grpc/credentials"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/config"
)

// certificates are what the doors show, as the files say. Methods may be called from anywhere.
type certificates struct {
	files config.TLS
	log   *slog.Logger

	mu      sync.Mutex
	stamp   string      // guarded by mu; of the files that were tried last
	current *tls.Config // guarded by mu; of the last good ones
}

// newCertificates reads the files; it is not called without one.
func newCertificates(files config.TLS, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log, stamp: stamp(files.Files())}
	var err error
	if c.current, err = files.Read(); err != nil {
		return nil, fmt.Errorf("listen.tls.%w", err)
	}
	return c, nil
}

// stamp changes when one of the files has been written or replaced.
func stamp(names []string) string {
	var s []byte
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			s = append(s, "none;"...)
			continue
		}
		inode := uint64(0)
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			inode = sys.Ino
		}
		s = fmt.Appendf(s, "%d %d %d;", st.ModTime().UnixNano(), st.Size(), inode)
	}
	return string(s)
}

// now is the configuration of a new connection. Files that are not good (one may be written before the other) change nothing.
func (c *certificates) now() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := stamp(c.files.Files()); now != c.stamp {
		c.stamp = now
		if next, err := c.files.Read(); err != nil {
			c.log.Warn("certificate refused", "err", fmt.Errorf("listen.tls.%w", err), "instead", "the certificate before stays in use")
		} else {
			c.current = next
			c.log.Info("certificate read again", "path", c.files.Files()[0])
		}
	}
	return c.current
}

// server is for a door that speaks these protocols.
func (c *certificates) server(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := c.now().Clone()
		now.NextProtos = protocols
		return now, nil
	}}
}

// onPorts has TLS on ports and none on unix sockets, whose peers the kernel knows: one gRPC server answers on both.
type onPorts struct {
	credentials.TransportCredentials
	sockets credentials.TransportCredentials
}

// ServerHandshake is [credentials.TransportCredentials]'s.
func (o onPorts) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == "unix" {
		if p, ok := access.PeerOf(conn); ok {
			return conn, p, nil
		}
		return o.sockets.ServerHandshake(conn)
	}
	return o.TransportCredentials.ServerHandshake(conn)
}

// Clone is [credentials.TransportCredentials]'s.
func (o onPorts) Clone() credentials.TransportCredentials {
	return onPorts{o.TransportCredentials.Clone(), o.sockets.Clone()}
}
