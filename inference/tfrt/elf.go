// elf.go: what can be known of a library, and of the loader's cache, without loading it.
package tfrt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkELF is nil where the file is a whole 64-bit ELF library for that architecture that has every symbol, itself or in
// libtensorflow_framework beside it.
func checkELF(path, arch string, want []string) error {
	missing, err := lacking(path, arch, want)
	if err != nil {
		return err
	}
	for _, name := range []string{"libtensorflow_framework.so.2", "libtensorflow_framework.so"} {
		beside := filepath.Join(filepath.Dir(path), name)
		if _, err := os.Stat(beside); err != nil {
			continue
		}
		if missing, err = lacking(beside, arch, missing); err != nil {
			return fmt.Errorf("%s beside it %w", name, err)
		}
		break
	}
	if len(missing) > 0 {
		return fmt.Errorf("has no %s and so is no TensorFlow of 2.11 or newer (%d of %d functions are missing)", missing[0], len(missing), len(want))
	}
	return nil
}

// lacking are the symbols that the library does not define. The error is the end of a sentence that begins with the file.
func lacking(path, arch string, want []string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.New("cannot be read: " + cause(err))
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, errors.New("cannot be read: " + cause(err))
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("is not a whole ELF library: %w", err)
	}
	switch {
	case e.Class != elf.ELFCLASS64 || e.Machine != machines[arch]:
		return nil, fmt.Errorf("is for %v, and this is %v", e.Machine, machines[arch])
	case e.Type != elf.ET_DYN:
		return nil, fmt.Errorf("is no shared library (%v)", e.Type)
	}
	// The loader maps what a segment says. Past the end of a file that was cut short a page is a SIGBUS.
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && (p.Filesz > uint64(info.Size()) || p.Off > uint64(info.Size())-p.Filesz) {
			return nil, fmt.Errorf("is cut short: it has %d bytes of at least %d", info.Size(), p.Off+p.Filesz)
		}
	}
	has, err := newSymbolTable(e)
	if err != nil {
		return nil, fmt.Errorf("has a symbol table that cannot be read: %w", err)
	}
	var missing []string
	for _, name := range want {
		ok, err := has.defines(name)
		if err != nil {
			return nil, fmt.Errorf("has a symbol table that cannot be read: %w", err)
		}
		if !ok {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// symbolTable looks symbols up as the loader does, in the hash table: the library has hundreds of thousands, and reading them all takes
// longer and more memory than the rest of the core's start.
type symbolTable struct {
	hash, symbols, names *elf.Section
	buckets, first       uint32 // number of buckets; index of the first symbol in the chains
	bucketsAt, chainsAt  int64
}

// newSymbolTable reads the head of the hash table. A file without one, or without section headers, is an error.
func newSymbolTable(e *elf.File) (*symbolTable, error) {
	t := &symbolTable{hash: e.Section(".gnu.hash"), symbols: e.Section(".dynsym"), names: e.Section(".dynstr")}
	if t.hash == nil || t.symbols == nil || t.names == nil {
		return nil, errors.New("no .gnu.hash, .dynsym or .dynstr section")
	}
	var head [16]byte
	if _, err := t.hash.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	t.buckets = binary.LittleEndian.Uint32(head[0:])
	t.first = binary.LittleEndian.Uint32(head[4:])
	t.bucketsAt = 16 + 8*int64(binary.LittleEndian.Uint32(head[8:]))
	t.chainsAt = t.bucketsAt + 4*int64(t.buckets)
	return t, nil
}

func (t *symbolTable) defines(name string) (bool, error) {
	if t.buckets == 0 {
		return false, nil
	}
	h := uint32(5381)
	for i := range len(name) {
		h = h*33 + uint32(name[i])
	}
	index, err := t.word(t.bucketsAt + 4*int64(h%t.buckets))
	if err != nil || index < t.first { // 0 is an empty bucket
		return false, err
	}
	for ; ; index++ { // ends at a chain's end mark or at the section's end
		link, err := t.word(t.chainsAt + 4*int64(index-t.first))
		if err != nil {
			return false, err
		}
		if link|1 == h|1 {
			if ok, err := t.is(index, name); ok || err != nil {
				return ok, err
			}
		}
		if link&1 == 1 {
			return false, nil
		}
	}
}

func (t *symbolTable) word(at int64) (uint32, error) {
	var b [4]byte
	_, err := t.hash.ReadAt(b[:], at)
	return binary.LittleEndian.Uint32(b[:]), err
}

// is reports whether symbol number index is defined and has that name.
func (t *symbolTable) is(index uint32, name string) (bool, error) {
	var sym [elf.Sym64Size]byte
	if _, err := t.symbols.ReadAt(sym[:], int64(index)*elf.Sym64Size); err != nil {
		return false, err
	}
	text := make([]byte, len(name)+1)
	if _, err := t.names.ReadAt(text, int64(binary.LittleEndian.Uint32(sym[0:]))); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil // shorter than the name, at the section's end
		}
		return false, err
	}
	section := elf.SectionIndex(binary.LittleEndian.Uint16(sym[6:]))
	return section != elf.SHN_UNDEF && text[len(name)] == 0 && string(text[:len(name)]) == name, nil
}

// cacheMagic begins the part of ld.so.cache that every glibc since 2.2 writes.
const cacheMagic = "glibc-ld.so.cache1.1"

// cachedLibraries are the paths that the loader's cache has for any of names, in the order of names. A cache that makes no sense has none.
func cachedLibraries(cache []byte, names []string) []string {
	start := bytes.Index(cache, []byte(cacheMagic))
	if start < 0 || len(cache)-start < 48 {
		return nil
	}
	cache = cache[start:]
	text := func(at uint32) string {
		if uint64(at) >= uint64(len(cache)) {
			return ""
		}
		s, _, _ := bytes.Cut(cache[at:], []byte{0})
		return string(s)
	}
	found := make(map[string][]string)
	entries := cache[48:]
	for n := binary.LittleEndian.Uint32(cache[20:]); n > 0 && len(entries) >= 24; n-- {
		name := text(binary.LittleEndian.Uint32(entries[4:]))
		if path := text(binary.LittleEndian.Uint32(entries[8:])); slices.Contains(names, name) && filepath.IsAbs(path) {
			found[name] = append(found[name], path)
		}
		entries = entries[24:]
	}
	var list []string
	for _, name := range names {
		list = append(list, found[name]...)
	}
	return list
}
