// The crash-report dialog in the shape in which Sentry serves it, for the sinks to answer with.
// They fill in the endpoint: the absolute URL, at their own address, of the request that asked for
// this script, as a JSON string that is safe in HTML.
(function (window, document) {
  "use strict";
  var endpoint = /**/ENDPOINT;/**/

  var dialog = document.createElement("div");
  dialog.className = "sentry-error-embed";
  dialog.style.cssText = "position: fixed; inset: 0; z-index: 1000; background: white";
  dialog.innerHTML =
    "<form><h2>It looks like we’re having issues.</h2>" +
    '<input name="name"><input name="email" type="email"><textarea name="comments"></textarea>' +
    '<button type="submit">Submit Crash Report</button></form>' +
    '<p class="message"></p><button type="button" class="close">Close</button>';
  document.body.appendChild(dialog);

  var form = dialog.querySelector("form");
  var message = dialog.querySelector(".message");

  form.onsubmit = function (event) {
    event.preventDefault();
    var body = Array.prototype.map.call(form.querySelectorAll("[name]"), function (field) {
      return field.name + "=" + encodeURIComponent(field.value);
    });
    var request = new XMLHttpRequest();
    request.onreadystatechange = function () {
      if (request.readyState !== 4) return;
      if (request.status === 200) form.remove();
      message.textContent = request.status === 200 ? "Thank you!" : "Not sent: " + request.status;
    };
    request.open("POST", endpoint, true);
    request.setRequestHeader("Content-Type", "application/x-www-form-urlencoded");
    request.send(body.join("&"));
  };

  dialog.querySelector(".close").onclick = function () {
    dialog.remove();
    window.postMessage("__sentry_reportdialog_closed__", "*");
  };
})(window, document);
