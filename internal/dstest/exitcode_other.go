//go:build !unix

package dstest

import "os"

func exitCode(p *os.ProcessState) int { return p.ExitCode() }
