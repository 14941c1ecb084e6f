package client

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"sync"

	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// rowsBatch is how many bytes of rows are sent at once.
const rowsBatch = 1 << 20

// rows is the table of a run, which all calls of Rows fill.
type rows struct {
	mu   sync.Mutex
	sent bool
}

// Rows hands structured results to the host, which renders them in the user's --format when the program
// ends. v is a struct or a slice of structs: the json tag of a field is its key, ds:"HEADER" makes it a
// column, ds:"HEADER,wide" a column of --format wide, ds:"HEADER,size" bytes that tables show as "91.2 MiB".
// Without any ds tag every field is a column. A program emits rows or writes to stdout, not both; several calls add to one table.
func (c *Client) Rows(v any) error {
	rv := reflect.ValueOf(v)
	for rv.Kind() == reflect.Pointer && !rv.IsNil() {
		rv = rv.Elem()
	}
	single := rv.Kind() == reflect.Struct || rv.Kind() == reflect.Map
	if !single && rv.Kind() != reflect.Slice && rv.Kind() != reflect.Array {
		return Usagef("Rows: %T is no struct and no slice", v)
	}
	elem := rv.Type()
	if !single {
		elem = elem.Elem()
	}
	c.mu.Lock()
	if c.rows == nil {
		c.rows = &rows{}
		c.onClose(c.endRows)
	}
	r := c.rows
	c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	batch := &hostv1lite.RowBatch{Format: c.format, Single: single && !r.sent}
	if !r.sent {
		batch.Columns = columns(elem)
	}
	n := 1
	if !single {
		n = rv.Len()
	}
	size := 0
	for i := range n {
		item := rv
		if !single {
			item = rv.Index(i)
		}
		b, err := json.Marshal(item.Interface())
		if err != nil {
			return Usagef("Rows: %v", err)
		}
		if size+len(b) > rowsBatch && size > 0 {
			if err := c.sendRows(r, batch); err != nil {
				return err
			}
			batch, size = &hostv1lite.RowBatch{Format: c.format}, 0
		}
		batch.RowsJson = append(batch.RowsJson, string(b))
		size += len(b)
	}
	return c.sendRows(r, batch)
}

func (c *Client) sendRows(r *rows, batch *hostv1lite.RowBatch) error {
	err := c.invoke(context.Background(), hostv1lite.TermRows, batch, &hostv1lite.Empty{})
	if err == nil {
		r.sent = true
	}
	return err
}

// endRows draws the table.
func (c *Client) endRows() error {
	if !c.rows.sent {
		return nil
	}
	return c.sendRows(c.rows, &hostv1lite.RowBatch{End: true, Format: c.format})
}

// columns are the columns of a row type in the form of hostabi.Rows.
func columns(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var tagged, all []string
	for _, f := range reflect.VisibleFields(t) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || key == "-" || f.Anonymous && key == "" {
			continue
		}
		if key == "" {
			key = f.Name
		}
		all = append(all, key)
		if head, ok := f.Tag.Lookup("ds"); ok {
			tagged = append(tagged, key+"="+head)
		}
	}
	if tagged != nil {
		return tagged
	}
	return all
}
