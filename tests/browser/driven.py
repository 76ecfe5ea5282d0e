"""A page in a browser, by what a person sees and does."""

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.support.ui import Select, WebDriverWait


class DrivenPage:
    """Any page."""

    def __init__(self, driver):
        self.driver = driver

    def all(self, selector):
        """Elements of the page."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        """The only such element."""
        (element,) = self.all(selector)
        return element

    def js(self, code, *arguments):
        """Value of an expression, with the arguments as a, b."""
        return self.driver.execute_script(
            f"const [a, b] = arguments; return {code}", *arguments
        )

    def wait(self, condition, message=""):
        """Wait till a function says something true, and return that."""
        # An element that is drawn anew while it is looked at is not there yet.
        redrawn = [StaleElementReferenceException]
        return WebDriverWait(self.driver, 30, 0.05, redrawn).until(
            lambda _: condition(), message
        )

    def slide(self, control, value):
        """Move a slider as a hand would, and let the page redraw."""
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
