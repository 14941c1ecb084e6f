package sandbox

import "context"

type callerKey struct{}

// WithCaller marks ctx: a plugin started under it is called by the run that box belongs to. Grants.Box makes
// it BoxOptions.Inherited.
func WithCaller(ctx context.Context, box *Box) context.Context {
	return context.WithValue(ctx, callerKey{}, box)
}

// CallerOf is the Box of the calling run, nil at top level.
func CallerOf(ctx context.Context) *Box {
	b, _ := ctx.Value(callerKey{}).(*Box)
	return b
}
