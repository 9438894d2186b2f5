/** Launches of other applications (SMART App Launch 2.2): in windows of their own, the chart in a frame. */

import { confirmed } from "/shared/dialog.js";
import { button, element, place } from "/shared/dom.js";
import { FrameLosses } from "/shared/frames.js";

const WINDOWS = [
  { app: "pacs", icon: "image", title: { en: "PACS", no: "PACS" } },
  { app: "second-opinion", icon: "image", title: { en: "Second opinion", no: "Annen vurdering" } },
  { app: "reporting", icon: "report", title: { en: "Reporting", no: "Beskrivelse" } },
];

/**
 * @param {string} name of the application
 * @returns {Promise<string>} the address to open. With an open patient it is an EHR launch. Else the application logs
 *   in by itself, because a launch without a patient has no context. Both name the user: the window may begin its login
 *   only after the next user has logged in. Throws an Error with a part of a sentence.
 */
async function launchUrl(app, desk, name) {
  const query = new URLSearchParams({ lang: app.language });
  if (desk.patient) {
    query.set("iss", app.config.fhir);
    query.set("launch", await launchId(app, desk));
  } else if (app.user.hpr) {
    query.set("login_hint", app.user.hpr);
  }
  return `${app.config.apps[name]}/index.html?${query}`;
}

async function launchId(app, desk) {
  const encounter = desk.parts?.Encounter.find((each) => desk.isOpen(each))?.id;
  const study = desk.parts?.ImagingStudy.find((each) => desk.isOpen(each))?.id;
  const body = JSON.stringify({ patient: desk.patient.id, encounter, imagingStudy: study });
  const headers = { "Authorization": `Bearer ${await app.smart.accessToken()}`, "Content-Type": "application/json" };
  const answer = await fetch(`${app.config.issuer}/launch`, { method: "POST", headers, body }).catch(() => null);
  if (!answer?.ok) throw new Error(answer ? app.t("launch.status", { status: answer.status }) : app.t("launch.away"));
  return (await answer.json()).launch;
}

/** The buttons that open windows. A window that is open is brought to the front. */
export function showLaunches(app, desk) {
  const launches = place("launches");
  /** @type {Map<string, Window>} */
  const opened = new Map();

  const launch = async ({ app: name, title }) => {
    const before = opened.get(name);
    if (before && !before.closed) return before.focus();
    // opened during the click: browsers block windows that are opened after an answer
    const opening = window.open("", `fhircast-demo-${name}`);
    if (!opening) return desk.failed("launch.blocked", { app: title[app.language] });
    opened.set(name, opening);
    try {
      opening.location = await launchUrl(app, desk, name);
      opening.focus();
    } catch (error) {
      opening.close();
      opened.delete(name);
      desk.failed("launch.failed", { app: title[app.language], why: error.message });
    }
  };
  const render = () => {
    launches.replaceChildren(
      ...WINDOWS.map((each) =>
        button(each.title[app.language], () => launch(each), { icon: "window", test: `launch-${each.app}` }),
      ),
    );
  };
  document.addEventListener("language", render);
  render();
}

/** The chart in its frame, launched with the first patient. Later it follows the session like any application. */
export function showChart(app, desk) {
  const [around, said, again] = ["chart-place", "chart-said", "chart-again"].map(place);
  const losses = new FrameLosses(app.config.apps.chart);
  let launched = false;

  const tell = (text) => {
    said.hidden = !text;
    said.textContent = text;
  };
  const launch = async () => {
    launched = true;
    tell(app.t("chart.loading"));
    try {
      const frame = element("iframe", {
        "src": await launchUrl(app, desk, "chart"),
        "data-test": "chart-frame",
        "title": app.t("chart.title"),
      });
      around.replaceChildren(frame);
      losses.watch(frame);
      tell("");
    } catch (error) {
      launched = false;
      tell(app.t("launch.failed", { app: app.t("chart.title"), why: error.message }));
    }
  };
  again.addEventListener("click", async () => {
    if (!losses.any || (await mayBeLost(app))) await launch();
  });
  app.unsaved = () => losses.unsaved;
  desk.addEventListener("change", () => desk.patient && !launched && launch());
  document.addEventListener("language", () => around.firstElementChild?.setAttribute("title", app.t("chart.title")));
}

/** The chart keeps its notes only in its page. */
function mayBeLost({ t }) {
  const [title, text, yes, no] = ["title", "text", "yes", "no"].map((part) => t(`chart.again-${part}`));
  return confirmed({ title, texts: [text], yes, no, test: "chart-sure" });
}
