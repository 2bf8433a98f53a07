// Opened from a disk (file://), a page may start no worker, and the search of the theme is one: it runs in a hidden frame there.
// The theme looks for the name IFrameWorker; the plugin "offline" leaves its own script, which is on a foreign host, for a
// file of this name.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "Search";
      document.body.append(this.frame);
      this.frame.contentWindow.postMessage = (data) => this.hear(data);
      this.ready = new Promise((loaded) => {
        const script = this.frame.contentDocument.createElement("script");
        script.onload = loaded;
        script.src = url;
        this.frame.contentDocument.head.append(script);
      });
    }

    hear(data) {
      const message = new MessageEvent("message", { data });
      this.dispatchEvent(message);
      this.onmessage?.(message);
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow?.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
