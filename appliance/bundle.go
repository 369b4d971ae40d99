// bundle.go: the support archive of `inferd doctor --bundle`: what somebody elsewhere needs to see, and no secret and no payload.
package appliance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
)

// Limits of an archive.
const (
	bundleEntryBytes = 4 << 20          // of one file in it; what is longer is cut
	bundleStep       = 20 * time.Second // for one file to be found out
)

// BundleOptions say what the archive is made of.
type BundleOptions struct {
	Version string
	// Config is the configuration that was read; with ConfigErr, why it could not be, it is the default one.
	Config    *config.Config
	ConfigErr error
	// Address is where the running inferd answers; empty: the configured control socket.
	Address string
	Doctor  DoctorOptions
}

// BundleManifest is manifest.json in the archive: what is in it, and what is not and why.
type BundleManifest struct {
	Made      time.Time      `json:"made"`
	Version   string         `json:"version"`
	Running   bool           `json:"running"` // an inferd answered
	Files     []BundleFile   `json:"files"`
	LeftOut   []BundleGap    `json:"left_out"`
	Never     []string       `json:"never_in_it"`
	Blackened map[string]int `json:"blackened"` // by kind of secret, how often one was found and replaced
}

// BundleFile is one file of the archive.
type BundleFile struct {
	Name  string `json:"name"`
	From  string `json:"from"`
	Bytes int    `json:"bytes"`
	Cut   bool   `json:"cut,omitempty"` // it was longer
}

// BundleGap is what would be there and is not.
type BundleGap struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// never is what no archive has, whatever is asked.
var never = []string{
	"requests, answers, and the jobs in the queue: they are counted",
	"idempotency keys, sessions, and the names and addresses of clients",
	"tokens and their hashes, TLS keys and certificates, the environment",
	"the models' files: folders are listed with their sizes",
	"what models print, and error texts that quote requests",
}

// bundle is an archive in the making.
type bundle struct {
	ctx      context.Context
	tar      *tar.Writer
	black    *blackener
	manifest BundleManifest
	err      error // of writing; nothing more is written after it
}

// Bundle writes the archive, a tar.gz, to w. It works with and without a running inferd, changes nothing, and opens the state and the queue only when no
// inferd has them. The error is one of writing: whatever cannot be found out is named in the manifest.
func Bundle(ctx context.Context, w io.Writer, o BundleOptions) (*BundleManifest, error) {
	if o.Config == nil {
		o.Config = config.Default()
	}
	zip := gzip.NewWriter(w)
	b := &bundle{ctx: ctx, tar: tar.NewWriter(zip), black: newBlackener(o.Config)}
	b.manifest = BundleManifest{Made: time.Now().UTC().Truncate(time.Second), Version: o.Version, Never: never}

	address := o.Address
	if address == "" {
		address = o.Config.FindControlSocket()
	}
	c := control.Dial(address)
	defer c.Close()
	running := b.running(c, o)
	b.configuration(o)
	b.add("doctor.json", "inferd doctor", func(ctx context.Context) ([]byte, error) {
		return indented(Doctor(ctx, o.Config, o.Doctor))
	})
	if running == nil {
		b.atRest(o.Config)
	}
	b.folders(o.Config, running)
	b.machine(running)
	b.log()

	b.manifest.Blackened = b.black.counts
	text, err := indented(b.manifest)
	if err != nil {
		return nil, err
	}
	b.write("manifest.json", text)
	for _, end := range []func() error{b.tar.Close, zip.Close} {
		if err := end(); err != nil && b.err == nil {
			b.err = err
		}
	}
	return &b.manifest, b.err
}

// add puts one file into the archive: what find returns, without secrets and not too long. What cannot be found is a gap.
func (b *bundle) add(name, from string, find func(ctx context.Context) ([]byte, error)) {
	ctx, cancel := context.WithTimeout(b.ctx, bundleStep)
	defer cancel()
	text, err := find(ctx)
	if err != nil {
		b.gap(name, "%v", err)
		if len(text) == 0 {
			return
		}
	}
	text = b.black.out(text) // before it is cut, for half a secret would not be known as one
	f := BundleFile{Name: name, From: from, Bytes: len(text)}
	if len(text) > bundleEntryBytes {
		text, f.Cut = text[:bundleEntryBytes], true
		f.Bytes = len(text)
	}
	b.manifest.Files = append(b.manifest.Files, f)
	b.write(name, text)
}

func (b *bundle) gap(name, format string, args ...any) {
	why := b.black.out(fmt.Appendf(nil, format, args...))
	b.manifest.LeftOut = append(b.manifest.LeftOut, BundleGap{Name: name, Why: string(why)})
}

func (b *bundle) write(name string, text []byte) {
	if b.err != nil {
		return
	}
	if b.err = b.tar.WriteHeader(&tar.Header{Name: "inferd-bundle/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: b.manifest.Made}); b.err == nil {
		_, b.err = b.tar.Write(text)
	}
}

func indented(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return out.Bytes(), err
}
