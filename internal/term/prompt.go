package term

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/delivery-station/ds/hostabi"
)

// Prompt asks p on stderr and reads the answer from the terminal. Where nobody can be asked it answers
// p.Fallback with defaulted true, or NO_TERMINAL if there is none; --yes answers a confirm with "yes". A
// confirm answers "yes" or "no". Text from a plugin is cleaned and carries the plugin's name.
func (t *Terminal) Prompt(ctx context.Context, p hostabi.Prompt) (answer string, defaulted bool, err error) {
	if p.Kind == "confirm" && t.o.Yes {
		return "yes", false, nil
	}
	if !t.facts.Prompts {
		if p.Fallback != "" {
			return p.Fallback, true, nil
		}
		return "", false, hostabi.Errorf(hostabi.ReasonNoTerminal, "input needed (%s) and there is no terminal to ask on", Clean(p.Text, 120))
	}
	t.prompt.Lock()
	defer t.prompt.Unlock()
	for {
		if _, err := io.WriteString(t.bars, t.question(p)); err != nil {
			return "", false, err
		}
		line, err := t.read(ctx, p.Kind == "secret")
		if err != nil {
			return "", false, err
		}
		if answer, ok := accept(p, strings.TrimSpace(line)); ok {
			return answer, false, nil
		}
	}
}

func (t *Terminal) question(p hostabi.Prompt) string {
	var b strings.Builder
	if p.Plugin != "" {
		fmt.Fprintf(&b, "[%s] ", p.Plugin)
	}
	if p.Plugin != "" {
		b.WriteString(Clean(p.Text, hostabi.MaxPrompt))
	} else {
		b.WriteString(p.Text) // ds's own, several lines
	}
	switch p.Kind {
	case "confirm":
		if p.Fallback == "yes" {
			b.WriteString(" [Y/n]")
		} else {
			b.WriteString(" [y/N]")
		}
	case "choose":
		choices := make([]string, len(p.Choices))
		for i, c := range p.Choices {
			choices[i] = Clean(c, 80)
		}
		fmt.Fprintf(&b, " (%s)", strings.Join(choices, ", "))
	}
	b.WriteString(" ")
	return b.String()
}

// accept maps a typed line to an answer; ok is false when the question must be asked again.
func accept(p hostabi.Prompt, line string) (answer string, ok bool) {
	if line == "" && p.Fallback != "" {
		return p.Fallback, true
	}
	switch p.Kind {
	case "confirm":
		switch strings.ToLower(line) {
		case "y", "yes":
			return "yes", true
		case "", "n", "no":
			return "no", true
		}
		return "", false
	case "choose":
		return line, slices.Contains(p.Choices, line)
	}
	return line, true
}

// read reads one line. A read that ctx outlives ends with the process: a terminal cannot be asked to stop.
func (t *Terminal) read(ctx context.Context, secret bool) (string, error) {
	type result struct {
		line string
		err  error
	}
	c := make(chan result, 1)
	go func() {
		f, ok := t.o.Stdin.(*os.File)
		if secret && ok {
			b, err := term.ReadPassword(int(f.Fd()))
			c <- result{string(b), err}
			return
		}
		line, err := bufio.NewReader(t.o.Stdin).ReadString('\n')
		if err == io.EOF && line != "" {
			err = nil
		}
		c <- result{line, err}
	}()
	select {
	case r := <-c:
		if r.err != nil {
			return "", hostabi.Errorf(hostabi.ReasonNoTerminal, "no answer on the terminal: %w", r.err)
		}
		return r.line, nil
	case <-ctx.Done():
		return "", hostabi.Errorf(hostabi.ReasonInterrupted, "interrupted at a prompt: %w", ctx.Err())
	}
}
