// record.go: the form of a value: one format byte, a checksum, the bytes.
package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	recordFormat = 1
	recordHeader = 5
	// MaxValue is the most bytes that one value may have.
	MaxValue = 1 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errRecord  = errors.New("the record's checksum does not fit")
)

// seal is value as it is stored under key. The key is part of the checksum, so that a record in a wrong place is found out.
func seal(key, value []byte) []byte {
	out := make([]byte, recordHeader, recordHeader+len(value))
	out[0] = recordFormat
	binary.BigEndian.PutUint32(out[1:], sum(key, value))
	return append(out, value...)
}

// unseal is a copy of what was sealed under key.
func unseal(key, stored []byte) ([]byte, error) {
	value, err := unsealed(key, stored)
	if err != nil {
		return nil, err
	}
	return append([]byte{}, value...), nil
}

// unsealed is what was sealed under key, where it lies.
func unsealed(key, stored []byte) ([]byte, error) {
	if len(stored) < recordHeader || stored[0] != recordFormat || binary.BigEndian.Uint32(stored[1:]) != sum(key, stored[recordHeader:]) {
		return nil, errRecord
	}
	return stored[recordHeader:], nil
}

func sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Update(crc32.Checksum([]byte{recordFormat}, castagnoli), castagnoli, key), castagnoli, value)
}
