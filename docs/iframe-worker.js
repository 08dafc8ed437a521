// Browsers allow no Worker in a page that is opened from a disk, so the search runs in a frame there.
// The theme would load such a script from another machine, unless one of this name is given.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      this.ready = new Promise((resolve) => (frame.onload = resolve))
      frame.contentDocument.open()
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      frame.contentDocument.write(`<script src="${url}"></script>`)
      frame.contentDocument.close()
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
