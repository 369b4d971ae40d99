// coding_test.go: there and back, damage, streams that declare too much, and what clients accept.
package coding

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

var both = []string{Gzip, Zstd}

func expand(t testing.TB, name string, stream []byte) ([]byte, error) {
	t.Helper()
	r := NewReader(name, bytes.NewReader(stream))
	out, err := io.ReadAll(r)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrCorrupt) {
		t.Errorf("a closed reader gives %d bytes, %v", n, err)
	}
	return out, err
}

func TestThereAndBack(t *testing.T) {
	noise := make([]byte, 3<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for _, name := range both {
		for _, body := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("predictions "), 1<<18), noise} {
			for range 2 { // the second time with what is in the pools
				if got, err := expand(t, name, Compress(name, body)); err != nil || !bytes.Equal(got, body) {
					t.Errorf("%s of %d bytes: %d bytes, %v", name, len(body), len(got), err)
				}
			}
		}
	}
}

// TestForeignTools: what the world's own programs make and read.
func TestForeignTools(t *testing.T) {
	body := strings.Repeat("instances ", 1<<16)
	for _, name := range both {
		tool, err := exec.LookPath(name)
		if err != nil {
			t.Logf("no %s on this machine: not tried against it", name)
			continue
		}
		pack := exec.CommandContext(t.Context(), tool, "-c")
		pack.Stdin = strings.NewReader(body)
		theirs, err := pack.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := expand(t, name, theirs); err != nil || string(got) != body {
			t.Errorf("%s -c: %d bytes, %v", name, len(got), err)
		}
		unpack := exec.CommandContext(t.Context(), tool, "-dc")
		unpack.Stdin = bytes.NewReader(Compress(name, []byte(body)))
		if got, err := unpack.Output(); err != nil || string(got) != body {
			t.Errorf("%s -dc: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestDamage(t *testing.T) {
	for _, name := range both {
		whole := Compress(name, bytes.Repeat([]byte("abcdefgh"), 4096))
		bad := append([]byte{}, whole...)
		bad[len(bad)-1] ^= 1 // of the checksum
		for what, stream := range map[string][]byte{"cut short": whole[:len(whole)/2], "another kind": []byte(`{"instances":[1]}`), "a wrong sum": bad} {
			if _, err := expand(t, name, stream); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	if _, err := expand(t, Gzip, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an empty gzip stream: %v", err)
	}
}

var errBelow = errors.New("the connection is gone")

type failing struct{ io.Reader }

func (f failing) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err != nil {
		err = errBelow
	}
	return n, err
}

func TestTheStreamBelowFails(t *testing.T) {
	for _, name := range both {
		whole := Compress(name, bytes.Repeat([]byte("abcdefgh"), 4096))
		r := NewReader(name, failing{bytes.NewReader(whole[:len(whole)/2])})
		if _, err := io.ReadAll(r); !errors.Is(err, errBelow) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		r.Close()
	}
}

// TestWindow: a stream that would have its reader keep more is refused before it does.
func TestWindow(t *testing.T) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(4*Window))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := w.Write(make([]byte, Window)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if b.Len() > 1<<16 {
		t.Fatalf("the stream has %d bytes", b.Len())
	}
	if out, err := expand(t, Zstd, b.Bytes()); !errors.Is(err, ErrCorrupt) || len(out) != 0 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// TestMemory: what is booked for a stream follows its window.
func TestMemory(t *testing.T) {
	for size, want := range map[int]int64{100: 512 << 10, 200 << 10: 512 << 10, 512 << 10: 4 << 20, 4 << 20: 16 << 20} {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(max(1<<10, 1<<bits.Len(uint(size-1)))))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // more than one block, so that its size is not known at the start
			if _, err := w.Write(make([]byte, max(size, 1<<20))); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		r := NewReader(Zstd, bytes.NewReader(b.Bytes()))
		if got := r.Memory(); got != want {
			t.Errorf("a window of %d: %d, want %d", size, got, want)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("a window of %d: %v", size, err)
		}
		r.Close()
	}
	skipped := append([]byte{0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 'x'}, Compress(Zstd, []byte("after"))...)
	r := NewReader(Zstd, bytes.NewReader(skipped))
	if got, err := io.ReadAll(r); string(got) != "after" || err != nil || r.Memory() != 2*Window {
		t.Errorf("after a frame to be skipped: %q, %v, %d", got, err, r.Memory())
	}
	r.Close()
}

// TestExpandsAsFarAsItIsRead: a bomb costs its reader no more than what is taken out of it.
func TestExpandsAsFarAsItIsRead(t *testing.T) {
	for _, name := range both {
		var b bytes.Buffer
		w := NewWriter(name, &b)
		chunk := make([]byte, 1<<20)
		for range 256 {
			if _, err := w.Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		from := bytes.NewReader(b.Bytes())
		r := NewReader(name, from)
		if n, err := io.CopyN(io.Discard, r, 4<<20); n != 4<<20 || err != nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if from.Len() < b.Len()/2 {
			t.Errorf("%s: %d of %d bytes were read ahead", name, b.Len()-from.Len(), b.Len())
		}
		r.Close()
	}
}

func TestAccepted(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "identity": "", "br": "", "gzip": Gzip, "GZIP": Gzip, "zstd": Zstd, "gzip, deflate, br, zstd": Zstd, "gzip;q=1, zstd;q=0.5": Gzip,
		"zstd;q=0": "", "zstd;q=0, gzip": Gzip, "gzip;q=0": "", "*": Gzip, "*;q=0": "", "gzip;q=0, *": "", "zstd; q=0.1": Zstd, "gzip;q=x": "",
		"gzip;q=nan": "", "gzip;q=-1": "", "br, *;q=0.1": Gzip,
	} {
		if got := Accepted(http.Header{"Accept-Encoding": {header}}); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
	if got := Accepted(http.Header{"Accept-Encoding": {"gzip;q=0.1", "zstd;q=0.2"}}); got != Zstd {
		t.Errorf("of two lines: %q", got)
	}
}

func TestNamed(t *testing.T) {
	for header, want := range map[string]string{"": "", "Identity": "", "gzip": Gzip, "X-GZIP": Gzip, "Zstd": Zstd, "deflate": Deflate} {
		if got, ok := Named(header); got != want || !ok {
			t.Errorf("%q: %q %v", header, got, ok)
		}
	}
	for _, header := range []string{"br", "gzip, zstd", "zlib"} {
		if _, ok := Named(header); ok {
			t.Errorf("%q is known", header)
		}
	}
}

// TestDeflate reads what is never written here.
func TestDeflate(t *testing.T) {
	body := strings.Repeat("predictions ", 1<<16)
	var stream bytes.Buffer
	w := zlib.NewWriter(&stream)
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := expand(t, Deflate, stream.Bytes()); err != nil || string(got) != body {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, bad := range [][]byte{nil, []byte("x"), []byte("instances"), stream.Bytes()[:stream.Len()-1], stream.Bytes()[:9]} {
		if _, err := expand(t, Deflate, bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if got := Accepted(http.Header{"Accept-Encoding": {"deflate"}}); got != "" {
		t.Errorf("answers in %q", got)
	}
}

func FuzzReader(f *testing.F) {
	for _, name := range both {
		f.Add(name == Zstd, Compress(name, []byte("instances")))
	}
	f.Fuzz(func(t *testing.T, z bool, stream []byte) {
		name := Gzip
		if z {
			name = Zstd
		}
		r := NewReader(name, bytes.NewReader(stream))
		defer r.Close()
		if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v", err)
		}
	})
}
