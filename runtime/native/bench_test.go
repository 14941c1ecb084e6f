//go:build unix

package native_test

import (
	"os"
	"os/exec"
	"testing"
)

// BenchmarkStart compares a run without host calls (performance.md S15) with os/exec of the same program.
func BenchmarkStart(b *testing.B) {
	const program = "/bin/true"
	if _, err := os.Stat(program); err != nil {
		b.Skip(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	b.Run("exec", func(b *testing.B) {
		for b.Loop() {
			cmd := exec.Command(program)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
			if err := cmd.Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("direct", func(b *testing.B) {
		c := call{name: "true", path: program, stdin: null, stdout: null, stderr: null, rundir: b.TempDir()}
		for b.Loop() {
			if err := c.run(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
