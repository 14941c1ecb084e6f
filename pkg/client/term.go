package client

import (
	"context"

	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// Confirm asks a yes-or-no question on the user's terminal; where nobody can be asked it answers fallback.
func (c *Client) Confirm(ctx context.Context, question string, fallback bool) (bool, error) {
	r := hostv1lite.PromptReply{}
	req := &hostv1lite.PromptRequest{Kind: "confirm", Text: question, Fallback: "no"}
	if fallback {
		req.Fallback = "yes"
	}
	if err := c.invoke(ctx, hostv1lite.TermPrompt, req, &r); err != nil {
		return false, err
	}
	return r.Answer == "yes", nil
}

// Ask asks for a line; a secret is read without echo. Where nobody can be asked the error is DS1003.
func (c *Client) Ask(ctx context.Context, question string, secret bool) (string, error) {
	r := hostv1lite.PromptReply{}
	req := &hostv1lite.PromptRequest{Kind: "line", Text: question}
	if secret {
		req.Kind = "secret"
	}
	if err := c.invoke(ctx, hostv1lite.TermPrompt, req, &r); err != nil {
		return "", err
	}
	return r.Answer, nil
}
