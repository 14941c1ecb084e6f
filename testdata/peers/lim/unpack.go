package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// pack writes size bytes of files, one after the other, to out.zst, and their digest to out.sum.
func pack(out, size string, files []string) error {
	left, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	w, err := os.Create(out + ".zst")
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return err
	}
	h := sha256.New()
	for i := 0; left > 0; i++ {
		f, err := os.Open(files[i%len(files)])
		if err != nil {
			return err
		}
		n, err := io.Copy(io.MultiWriter(z, h), io.LimitReader(f, left))
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if left -= n; n == 0 {
			return fmt.Errorf("%s is empty", f.Name())
		}
	}
	if err := errors.Join(z.Close(), w.Close()); err != nil {
		return err
	}
	return os.WriteFile(out+".sum", []byte(hex.EncodeToString(h.Sum(nil))), 0o600)
}

// unpack is the least that unpacking one file takes: decode, hash, write.
func unpack(in, sum, out string) error {
	f, err := os.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	w, err := os.Create(out)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.CopyBuffer(io.MultiWriter(w, h), struct{ io.Reader }{z}, make([]byte, buffer))
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%s has digest %s, want %s", in, got, sum)
	}
	return nil
}
