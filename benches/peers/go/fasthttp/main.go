// fasthttp on one thread at a time (GOMAXPROCS is set by whoever starts it). `fasthttp ADDRESS`.
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"
	"strconv"

	"github.com/valyala/fasthttp"
)

var part = make([]byte, 64*1024)

type parts struct{ left int }

func (p *parts) Read(into []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if len(into) > p.left {
		into = into[:p.left]
	}
	n := copy(into, part)
	p.left -= n
	return n, nil
}

func answer(ctx *fasthttp.RequestCtx) {
	switch string(ctx.Path()) {
	case "/json":
		ctx.SetContentType("application/json")
		text, _ := json.Marshal(map[string]string{"message": "Hello, World!"})
		ctx.SetBody(text)
	case "/echo":
		ctx.SetContentType("text/plain")
		ctx.SetBody(ctx.PostBody())
	case "/upload":
		ctx.SetBodyString(strconv.Itoa(len(ctx.PostBody())))
	case "/down":
		ctx.SetBodyStream(&parts{left: 10 << 20}, -1)
	default:
		ctx.SetContentType("text/plain")
		ctx.SetBodyString("Hello, World!")
	}
}

func main() {
	log.Fatal((&fasthttp.Server{Handler: answer}).ListenAndServe(os.Args[1]))
}
