package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

// formatFlags say how messages are printed.
type formatFlags struct {
	json, meta, raw, null bool
}

func (f *formatFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.json, "json", false, "print each message as a line of JSON")
	flags.BoolVar(&f.meta, "meta", false, "print time, type and UUID before the data")
	flags.BoolVar(&f.raw, "raw", false, "print the data exactly, without a line's end")
	flags.BoolVarP(&f.null, "null", "0", false, "end each message with a NUL byte instead of a line's end")
	cmd.MarkFlagsMutuallyExclusive("json", "meta", "raw")
	cmd.MarkFlagsMutuallyExclusive("json", "null", "raw")
}

// record is a message in JSON. Data that is text stands in data, and other data in data_base64.
type record struct {
	Type    string    `json:"type"`
	UUID    string    `json:"uuid"`
	ReplyTo string    `json:"reply_to,omitempty"`
	Parent  string    `json:"parent,omitempty"`
	Time    time.Time `json:"time"`
	Data    *string   `json:"data,omitempty"`
	Base64  []byte    `json:"data_base64,omitempty"`
}

// appendTo appends a message to what is printed.
func (f *formatFlags) appendTo(buf []byte, msg gravbus.Message) []byte {
	data := msg.Data()
	if f.json {
		return appendJSON(buf, msg, data)
	}
	if f.meta {
		buf = fmt.Appendf(buf, "%s %s %s ", msg.Timestamp().UTC().Format("2006-01-02T15:04:05.000Z"), msg.Type(), msg.UUID())
	}
	buf = append(buf, data...)
	switch {
	case f.raw:
	case f.null:
		buf = append(buf, 0)
	default:
		buf = append(buf, '\n')
	}
	return buf
}

func appendJSON(buf []byte, msg gravbus.Message, data []byte) []byte {
	r := record{Type: msg.Type(), UUID: msg.UUID(), ReplyTo: msg.ReplyTo(), Parent: msg.ParentID(), Time: msg.Timestamp().UTC()}
	if utf8.Valid(data) {
		text := string(data)
		r.Data = &text
	} else {
		r.Base64 = data
	}
	b := bytes.NewBuffer(buf)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(r) // cannot fail: strings, bytes and a time of this era
	return b.Bytes()
}
