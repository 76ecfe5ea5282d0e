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
