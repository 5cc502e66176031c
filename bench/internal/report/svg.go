package report

import (
	"fmt"
	"html"
	"strings"
	"unicode/utf8"
)

// A drawing is an SVG image of a fixed width whose height is known at the end. It stands on a ground
// of its own, so that it can be read on a page of any colour, and follows the reader's choice of
// light or dark where the viewer passes that on.
type drawing struct {
	body   strings.Builder
	height float64
}

// What all drawings have in common, in pixels.
const (
	drawingWidth = 960
	margin       = 28
	charWidth    = 6.1 // of the text, on average and rounded up: no font is at hand to measure with
)

// palette is the style sheet. Classes: own gravbus, variant gravbus set up in another way, async,
// sync and limit the other peers.
const palette = `
text{font:11px -apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.h1{font-size:19px;font-weight:600}.h2{font-size:13px;font-weight:600}.mute{fill:#656d76}.strong{font-weight:600}
.ground{fill:#fff;stroke:#d0d7de}.grid{stroke:#d0d7de;stroke-width:1;stroke-dasharray:2 3}.one{stroke:#0969da;stroke-width:1.5}.rule{stroke:#eaeef2}
.spread{stroke:#1f2328;stroke-width:1;fill:none}.bad{fill:#cf222e}
.own{fill:#0969da}.variant{fill:#80b3f0}.async{fill:#9aa4b2}.sync{fill:#d9b98a}.limit{fill:#ccd2d9}
.hatch{stroke:#cf222e;stroke-width:1.6}.dot{stroke:#fff;stroke-width:1}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.mute{fill:#9198a1}.ground{fill:#0d1117;stroke:#3d444d}
.grid{stroke:#3d444d}.rule{stroke:#21262d}.spread{stroke:#e6edf3}.bad{fill:#ff7b72}.one{stroke:#4493f8}
.own{fill:#4493f8}.variant{fill:#27548f}.async{fill:#6e7887}.sync{fill:#8d744c}.limit{fill:#3d444d}.hatch{stroke:#ff7b72}.dot{stroke:#0d1117}}
`

// file returns the whole image.
func (d *drawing) file(title, desc string) []byte {
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]s" viewBox="0 0 %[1]d %[2]s" role="img" aria-labelledby="title desc">
<title id="title">%[3]s</title>
<desc id="desc">%[4]s</desc>
<style>%[5]s</style>
<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>
<rect class="ground" x="0.5" y="0.5" width="%[6]d" height="%[7]s" rx="8"/>
%[8]s</svg>
`, drawingWidth, px(d.height), escape(title), escape(desc), palette, drawingWidth-1, px(d.height-1), d.body.String())
}

// text writes text; anchor is start, middle or end.
func (d *drawing) text(x, y float64, anchor, class, text string) {
	d.printf(`<text x="%s" y="%s" text-anchor="%s" class="%s">%s</text>`, px(x), px(y), anchor, class, escape(text))
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	d.printf(`<line x1="%s" y1="%s" x2="%s" y2="%s" class="%s"/>`, px(x1), px(y1), px(x2), px(y2), class)
}

// printf writes an element, on a line of its own.
func (d *drawing) printf(format string, args ...any) {
	fmt.Fprintf(&d.body, format+"\n", args...)
}

// legend explains the colours, in a line at (x, y).
func (d *drawing) legend(x, y float64) {
	for _, e := range []struct{ class, text string }{
		{"own", "gravbus"},
		{"variant", "gravbus, other settings"},
		{"async", "async: messages are handed over"},
		{"sync", "sync: receivers run in the call"},
		{"limit", "limit: no bus"},
	} {
		d.printf(`<rect class="%s" x="%s" y="%s" width="11" height="11" rx="2"/>`, e.class, px(x), px(y-9.5))
		d.text(x+16, y, "start", "", e.text)
		x += 16 + 10 + textWidth(e.text)*0.93
	}
	d.printf(`<rect class="async" x="%[1]s" y="%[2]s" width="11" height="11" rx="2"/><rect fill="url(#hatch)" x="%[1]s" y="%[2]s" width="11" height="11" rx="2"/>`, px(x), px(y-9.5))
	d.text(x+16, y, "start", "", "lost, reordered or failed")
}

// class returns the class of a peer's bars.
func (f *figure) class() string {
	switch {
	case f.peer.ID == self:
		return "own"
	case strings.HasPrefix(f.peer.ID, variant):
		return "variant"
	}
	return f.peer.Kind
}

// capital starts a head with a capital.
func capital(head string) string {
	return strings.ToUpper(head[:min(1, len(head))]) + head[min(1, len(head)):]
}

func textWidth(text string) float64 { return charWidth * float64(utf8.RuneCountInString(text)) }

// px writes a coordinate, the same on every machine.
func px(x float64) string {
	text := fmt.Sprintf("%.1f", x)
	return strings.TrimSuffix(strings.Replace(text, "-0.0", "0.0", 1), ".0")
}

func escape(text string) string { return html.EscapeString(printable(text)) }
