// pages.go: a look at every page of a bbolt file before bbolt maps it.
package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"syscall"
)

// bbolt's form of a file: pages of one size; a head of 16 bytes; elements of 16 bytes that say where keys and values lie. Numbers are in the
// machine's order. Two meta pages, of which the valid one with the higher transaction counts.
const (
	pageHead    = 16
	pageElement = 16
	metaBytes   = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	flagBranch  = 1
	flagLeaf    = 2
	flagBucket  = 1 // of a leaf's element
	bucketHead  = 16
	maxDepth    = 64 // of pages and buckets within one another
)

var order = binary.NativeEndian

// pages walks a file.
type pages struct {
	data []byte
	size int      // of a page
	end  uint64   // the first page that is beyond the file's own account of it
	seen []uint64 // bits of pages
}

// inspectFile is inspect of a file, whose mapping it gives back.
func inspectFile(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err // bbolt begins an empty one
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	// Not MAP_POPULATE: where a page cannot be read, Linux tries that one again and again within mmap, for ever.
	_ = syscall.Madvise(data, syscall.MADV_WILLNEED) // only faster
	return errors.Join(guard(func() error { return inspect(data) }), syscall.Munmap(data))
}

// inspect reads every page that belongs to the newest state of a bbolt file and finds out whether bbolt can walk it: what is not so is
// errDamaged. bbolt itself looks for free pages, on opening and on a rollback, and checks, on goroutines of its own. There a page that is not
// what it should be ends the process, and so does one that the disk cannot read, for neither a panic nor a fault can be caught from here.
func inspect(data []byte) error {
	p := pages{data: data}
	root, err := p.meta()
	if err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if have := uint64(len(data)) / uint64(p.size); have < p.end {
		return fmt.Errorf("%w: it has %d pages and should have %d", errDamaged, have, p.end)
	}
	p.seen = make([]uint64, p.end/64+1)
	if err := p.page(root, 0, nil, nil); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

// meta finds the newest valid meta page, the way bbolt does, and gives the root's page.
func (p *pages) meta() (root uint64, err error) {
	var newest uint64
	found := false
	look := func(at int) {
		if at+pageHead+metaBytes > len(p.data) {
			return
		}
		b := p.data[at+pageHead:]
		size, txid := order.Uint32(b[8:]), order.Uint64(b[48:])
		h := fnv.New64a()
		_, _ = h.Write(b[:56])
		if order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion || order.Uint64(b[56:]) != h.Sum64() ||
			size < 1024 || size > 1<<24 || size&(size-1) != 0 || p.size != 0 && int(size) != p.size || found && txid <= newest {
			return
		}
		found, newest, p.size = true, txid, int(size)
		root, p.end = order.Uint64(b[16:]), order.Uint64(b[40:])
	}
	if look(0); found {
		look(p.size)
	}
	for at := 1024; at <= 1<<24 && !found; at *= 2 { // the page's size is not known
		look(at)
	}
	if !found {
		return 0, errors.New("neither of its meta pages is valid")
	}
	return root, nil
}

// page looks at one page and all below it. Its keys are from least on and below limit; nil: any.
func (p *pages) page(id uint64, depth int, least, limit []byte) error {
	if id < 2 || id >= p.end {
		return fmt.Errorf("page %d is named, of %d", id, p.end)
	}
	if depth == maxDepth {
		return fmt.Errorf("page %d: pages lie %d deep within one another", id, depth)
	}
	b := p.data[id*uint64(p.size):]
	if order.Uint64(b) != id {
		return fmt.Errorf("page %d says that it is page %d", id, order.Uint64(b))
	}
	more := uint64(order.Uint32(b[12:]))
	if more >= p.end-id {
		return fmt.Errorf("page %d goes on for %d, of %d", id, more, p.end)
	}
	for i := id; i <= id+more; i++ {
		if p.seen[i/64]>>(i%64)&1 != 0 {
			return fmt.Errorf("page %d belongs to two", i)
		}
		p.seen[i/64] |= 1 << (i % 64)
	}
	b = b[:(1+more)*uint64(p.size)]
	switch flags, count := order.Uint16(b[8:]), int(order.Uint16(b[10:])); {
	case flags == flagLeaf:
		return p.leaf(b, id, depth, least, limit)
	case flags != flagBranch || count == 0:
		return fmt.Errorf("page %d is none that holds keys: flags %x, %d elements", id, flags, count)
	default:
		return p.branch(b, id, count, depth, least, limit)
	}
}

func (p *pages) branch(b []byte, id uint64, count, depth int, least, limit []byte) error {
	var key []byte
	for i := range count {
		at := pageHead + i*pageElement
		next, err := element(b, count, at, 0, 4)
		if err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		if err := ordered(i, key, next, least, limit); err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		key = next
		below := limit
		if i+1 < count {
			if below, err = element(b, count, at+pageElement, 0, 4); err != nil {
				return fmt.Errorf("page %d, element %d: %w", id, i+1, err)
			}
		}
		if err := p.page(order.Uint64(b[at+8:]), depth+1, key, below); err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) leaf(b []byte, id uint64, depth int, least, limit []byte) error {
	count := int(order.Uint16(b[10:]))
	var key []byte
	for i := range count {
		at := pageHead + i*pageElement
		next, err := element(b, count, at, 4, 8)
		if err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		if err := ordered(i, key, next, least, limit); err != nil {
			return fmt.Errorf("page %d, element %d: %w", id, i, err)
		}
		key = next
		from := at + int(order.Uint32(b[at+4:])) + len(key)
		size := uint64(order.Uint32(b[at+12:]))
		if size > uint64(len(b)-from) {
			return fmt.Errorf("page %d, element %d: its value ends outside", id, i)
		}
		if order.Uint32(b[at:])&flagBucket == 0 {
			continue
		}
		if err := p.bucket(b[from:from+int(size)], id, depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket looks at a bucket, whose pages are its own or whose only page lies in its value.
func (p *pages) bucket(value []byte, id uint64, depth int) error {
	if len(value) < bucketHead {
		return fmt.Errorf("page %d: a bucket of %d bytes", id, len(value))
	}
	if root := order.Uint64(value); root != 0 {
		return p.page(root, depth+1, nil, nil)
	}
	inline := value[bucketHead:]
	if len(inline) < pageHead || order.Uint16(inline[8:]) != flagLeaf || order.Uint64(inline) != 0 || depth+1 == maxDepth {
		return fmt.Errorf("page %d: a bucket that lies in its value is none", id)
	}
	return p.leaf(inline, id, depth+1, nil, nil)
}

// element is the key of the element at; where its distance from the element and the key's size are said follows.
func element(b []byte, count, at, distance, size int) ([]byte, error) {
	if at+pageElement > len(b) {
		return nil, fmt.Errorf("%d elements do not fit", count)
	}
	from := uint64(at) + uint64(order.Uint32(b[at+distance:]))
	n := uint64(order.Uint32(b[at+size:]))
	if from < uint64(pageHead+count*pageElement) || from > uint64(len(b)) || n > uint64(len(b))-from {
		return nil, errors.New("its key lies outside")
	}
	return b[from : from+n], nil
}

// ordered reports a key that is not after the one before it, or not between the bounds.
func ordered(i int, before, key, least, limit []byte) error {
	if i > 0 && bytes.Compare(before, key) >= 0 || least != nil && bytes.Compare(key, least) < 0 || limit != nil && bytes.Compare(key, limit) >= 0 {
		return errors.New("its key is out of order")
	}
	return nil
}
