"""A page in a browser, as a person sees and uses it."""

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.support.ui import Select, WebDriverWait


class DrivenPage:
    """A page with the actions that all pages have in common."""

    def __init__(self, driver):
        self.driver = driver

    def all(self, selector):
        """Elements of the page."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        """The only matching element."""
        (element,) = self.all(selector)
        return element

    def js(self, code, *arguments):
        """Value of a JavaScript expression, with the arguments as a, b."""
        return self.driver.execute_script(
            f"const [a, b] = arguments; return {code}", *arguments
        )

    def wait(self, condition, message=""):
        """Wait until a function returns something true, and return it."""
        # An element that is being redrawn may not exist yet.
        redrawn = [StaleElementReferenceException]
        return WebDriverWait(self.driver, 30, 0.05, redrawn).until(
            lambda _: condition(), message
        )

    def slide(self, control, value):
        """Move a slider as by hand, and let the page redraw."""
        self.driver.execute_async_script(
            "const [e, v, done] = arguments; e.value = v;"
            "e.dispatchEvent(new Event('input', {bubbles: true}));"
            "requestAnimationFrame(() => requestAnimationFrame(done))",
            self.one(control),
            value,
        )

    def select(self, control, text):
        """Choose from a menu."""
        Select(self.one(control)).select_by_visible_text(text)

    def options(self, control):
        """Texts of a menu."""
        return [option.text for option in Select(self.one(control)).options]

    def press(self, *keys):
        """Press keys where the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()


def brightness(page, selector="body"):
    """Brightness of the background, 0 to 255."""
    colour = page.js(
        "getComputedStyle(document.querySelector(a)).backgroundColor", selector
    )
    return sum(map(float, colour.strip("rgba()").split(",")[:3])) / 3


def contrast(page, selector):
    """WCAG contrast ratio of the text to its background."""

    def luminance(colour):
        channels = [float(c) / 255 for c in colour.strip("rgba()").split(",")]
        r, g, b = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in channels[:3]
        )
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    colours = page.js(
        "((e) => { const text = getComputedStyle(e).color; let ground;"
        "do { ground = getComputedStyle(e).backgroundColor;"
        " e = e.parentElement; } while (ground === 'rgba(0, 0, 0, 0)');"
        "return [text, ground]; })(document.querySelector(a))",
        selector,
    )
    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def sizes_of_controls(page):
    """Markup, width and height of whatever can be pressed or moved."""
    return page.js(
        "[...document.querySelectorAll("
        "'a[href], button, input, select, summary')]"
        ".filter(e => e.checkVisibility({contentVisibilityAuto: true}))"
        ".map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])"
        ".map(([text, box]) => [text, box.width, box.height])"
    )


def sticking_out(page):
    """Markup of elements that are wider than the window."""
    return page.js(
        "[...document.querySelectorAll('body *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
