package client

import "context"

// Format is the output format that the user chose, before or after the plugin's name; empty if none.
func (c *Client) Format(ctx context.Context) (string, error) {
	if c.format != "" {
		return c.format, nil
	}
	d, err := c.Describe(ctx)
	if err != nil {
		return "", err
	}
	return d.Terminal.Format, nil
}

// DefaultFormat makes Rows use format where the user chose none; the host's own default is table. It is
// called before Rows.
func (c *Client) DefaultFormat(ctx context.Context, format string) error {
	chosen, err := c.Format(ctx)
	if err == nil && chosen == "" {
		c.format = format
	}
	return err
}
