import java.util.concurrent.FutureTask

import com.google.gson.Gson
import javafx.application.Platform
import javafx.beans.value.ChangeListener
import javafx.geometry.Insets
import javafx.scene.Scene
import javafx.scene.control.Alert
import javafx.scene.control.Button
import javafx.scene.control.ButtonBar
import javafx.scene.control.ButtonType
import javafx.scene.control.Dialog
import javafx.scene.control.Label
import javafx.scene.control.ListView
import javafx.scene.control.TextInputDialog
import javafx.scene.control.Tooltip
import javafx.scene.layout.VBox
import javafx.stage.Stage
import org.slf4j.LoggerFactory
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.viewer.overlays.BufferedImageOverlay
import qupath.lib.projects.Projects
import qupath.lib.regions.ImageRegion
import qupath.lib.scripting.QP

/**
 * What qpannot's scripts do in QuPath's window. The scripts in the menu call one method each.
 *
 * Dialogs are JavaFX's own: QuPath's moved between 0.4 and 0.5. Nothing else here differs up to 0.7.
 */
class ReviewWindow {

    private static final String TITLE = 'qpannot'
    private static final String PANEL = 'qpannot.panel', NAMES = 'qpannot.names'
    private static final logger = LoggerFactory.getLogger('qpannot')

    private final qupath = QuPathGUI.getInstance()

    ReviewWindow() {
        if (qupath == null)
            throw new IllegalStateException("This script needs QuPath's window. Without it: qpannot approve")
    }

    /** Saves the open slide, marks it reviewed and opens the next one that waits. */
    void markReviewed() {
        inWindow {
            def slide = openSlide()
            if (SlideQueue.state(slide.entry) == SlideQueue.APPROVED)
                throw new Refusal('This slide is approved already. To change that, send it back first.')
            boolean isEmpty = slide.imageData.hierarchy.annotationObjects.isEmpty()
            if (isEmpty && !confirm('Nothing is annotated on this slide. Is there truly nothing to annotate?'))
                return
            def next = SlideQueue.following(slide.entry, slide.queue.waiting())
            if (say(slide, SlideQueue.REVIEWED, 'first reader'))
                open(next, 'No other slide waits. The next step is: qpannot bootstrap')
        }
    }

    /** Saves the open slide, marks it approved and opens the next one that was reviewed. */
    void approve() {
        inWindow {
            def slide = openSlide()
            if (!(SlideQueue.state(slide.entry) in [SlideQueue.REVIEWED, SlideQueue.APPROVED]))
                throw new Refusal('This slide is not marked reviewed. A second reader comes after the first.')
            def next = SlideQueue.following(slide.entry, slide.queue.reviewed())
            if (say(slide, SlideQueue.APPROVED, 'second reader'))
                open(next, 'No other reviewed slide waits for a second reader.')
        }
    }

    /** Saves the open slide and has it wait for the first reader again. */
    void sendBack() {
        inWindow {
            def slide = openSlide()
            if (say(slide, SlideQueue.SENT_BACK, 'second reader'))
                tell("${slide.entry.getImageName()} waits for the first reader again.")
        }
    }

    /** Lists the slides that wait, to open one. */
    void showQueue() {
        inWindow {
            def queue = new SlideQueue(openProject())
            def entries = queue.waiting() + queue.reviewed()
            if (entries.isEmpty())
                throw new Refusal('No slide waits for anybody. The next step is: qpannot bootstrap')
            def list = new ListView()
            list.items.addAll(entries.collect { SlideQueue.describe(it) })
            list.selectionModel.select(0)
            list.prefWidth = 480
            def dialog = new Dialog()
            dialog.title = TITLE
            dialog.headerText = "${queue.waiting().size()} to be corrected, those that teach most first; " +
                "${queue.reviewed().size()} reviewed, for a second reader"
            dialog.dialogPane.content = list
            dialog.dialogPane.buttonTypes.addAll(new ButtonType('Open', ButtonBar.ButtonData.OK_DONE), ButtonType.CLOSE)
            dialog.initOwner(qupath.stage)
            def answer = dialog.showAndWait()
            if (answer.isPresent() && answer.get().buttonData == ButtonBar.ButtonData.OK_DONE)
                open(entries[list.selectionModel.selectedIndex], '')
        }
    }

    /** Shows the heatmap over the open slide, or hides it. */
    void toggleHeatmap() {
        inWindow {
            if (hideHeatmap())
                return
            def slide = openSlide()
            if (!showHeatmap(slide))
                throw new Refusal('There is no heatmap of this slide: no network has looked at it.')
        }
    }

    /** Opens a small window with a button for each of these, which stays beside QuPath's. */
    void showPanel() {
        inWindow {
            Stage panel = kept(PANEL) { newPanel() }
            panel.show()
            panel.toFront()
        }
    }

    private Stage newPanel() {
        def panel = new Stage()
        def box = new VBox(6)
        box.padding = new Insets(10)
        def where = new Label()
        def refresh = {
            where.text = whereItStands()
            panel.sizeToScene() // else a longer text is cut off
        }
        def add = { String text, String tip, Closure action ->
            def button = new Button(text)
            button.maxWidth = Double.MAX_VALUE
            button.tooltip = new Tooltip(tip)
            button.setOnAction { action(); refresh() }
            box.children.add(button)
        }
        box.children.add(where)
        add('Reviewed, next', 'Save, mark reviewed, and open the next slide that waits') { markReviewed() }
        add('Heatmap', "Show or hide what the network sees") { toggleHeatmap() }
        add('Queue...', 'The slides that wait, those that teach most first') { showQueue() }
        add('Approve, next', 'Second reader: save, approve, and open the next reviewed slide') { approve() }
        add('Send back', 'Second reader: the slide waits for the first reader again') { sendBack() }
        qupath.imageDataProperty().addListener({ value, before, after -> refresh() } as ChangeListener)
        panel.title = TITLE
        panel.initOwner(qupath.stage)
        panel.scene = new Scene(box)
        panel.userData = refresh
        refresh()
        return panel
    }

    private String whereItStands() {
        def project = qupath.getProject()
        def imageData = qupath.getImageData()
        def entry = project == null || imageData == null ? null : project.getEntry(imageData)
        if (entry == null)
            return 'Open a slide of a project.'
        return "${SlideQueue.describe(entry)}\n${new SlideQueue(project).waiting().size()} to be corrected"
    }

    /** Saves, and writes what the person says. False where the person thinks better of it. */
    private boolean say(Map slide, String state, String role) {
        if (qupath.isReadOnly())
            throw new Refusal('QuPath is in read-only mode: nothing can be said of a slide.')
        def by = name(role)
        if (by == null)
            return false
        if (slide.imageData.isChanged() || !slide.entry.hasImageData())
            slide.entry.saveImageData(slide.imageData)
        slide.queue.say(slide.entry, state, by)
        qupath.refreshProject()
        qupath.stage.properties[PANEL]?.userData?.call() // what is said from the menu shows in the panel, too
        logger.info('{} is {}', slide.entry.getImageName(), state)
        return true
    }

    /** What the person wants to be known as, asked for once until QuPath is closed. Null: cancelled. */
    private String name(String role) {
        Map names = kept(NAMES) { [:] }
        if (!names.containsKey(role)) {
            def dialog = new TextInputDialog()
            dialog.title = TITLE
            dialog.headerText = "Initials of the $role, to be recorded with what is said. May stay empty.\n" +
                'Asked once until QuPath is closed.'
            dialog.initOwner(qupath.stage)
            def answer = dialog.showAndWait()
            if (!answer.isPresent())
                return null
            names[role] = answer.get().trim()
        }
        return names[role]
    }

    private void open(entry, String otherwise) {
        if (entry == null) {
            tell(otherwise)
            return
        }
        boolean isShown = hideHeatmap()
        qupath.openImageEntry(entry) // where the person cancels, the slide stays
        if (isShown)
            showHeatmap(openSlide())
    }

    private boolean showHeatmap(Map slide) {
        def found = heatmapOf(slide.entry)
        if (found == null)
            return false
        def heatmap = new HeatmapFile(found.file)
        def region = ImageRegion.createInstance(
            Math.round(heatmap.x) as int, Math.round(heatmap.y) as int,
            Math.round(heatmap.width) as int, Math.round(heatmap.height) as int, 0, 0)
        def viewer = qupath.getViewer()
        heatmap.classes.findAll { it != found.rest }.each {
            // such an overlay goes by itself when another slide is opened
            def overlay = new BufferedImageOverlay(viewer, [(region): heatmap.image(it)])
            viewer.customOverlayLayers.add(overlay)
            ours() << overlay
        }
        viewer.overlayOptions.setShowPixelClassification(true) // else QuPath paints no overlay of this kind
        viewer.repaint()
        return true
    }

    /** True where a heatmap was shown. */
    private boolean hideHeatmap() {
        def viewer = qupath.getViewer()
        boolean isShown = viewer.customOverlayLayers.removeAll(ours())
        ours().clear()
        viewer.repaint()
        return isShown
    }

    private List ours() {
        return kept('qpannot.overlays') { [] }
    }

    /** The newest heatmap of a slide by the network that qpannot keeps, refined where it refines. */
    private Map heatmapOf(entry) {
        def house = new File(Projects.getBaseDirectory(qupath.getProject()), 'qpannot')
        def list = new File(house, 'heatmaps.json')
        if (!list.isFile())
            return null
        def shown = new Gson().fromJson(list.getText('UTF-8'), Map)
        def file = shown.folders.collect { new File(house, "heatmaps/$it/${entry.getID()}.ome.tif") }.find { it.isFile() }
        return file == null ? null : [file: file, rest: shown.rest]
    }

    private Map openSlide() {
        def project = openProject()
        def imageData = qupath.getImageData()
        if (imageData == null)
            throw new Refusal('Open a slide first.')
        def entry = project.getEntry(imageData)
        if (entry == null)
            throw new Refusal('The open image does not belong to the project.')
        return [queue: new SlideQueue(project), entry: entry, imageData: imageData]
    }

    private openProject() {
        def project = qupath.getProject()
        if (project == null)
            throw new Refusal("Open a project first: these scripts work on a project's slides.")
        return project
    }

    /** Runs on the thread that QuPath's window has, and tells the person what went wrong. */
    private void inWindow(Closure action) {
        if (!Platform.isFxApplicationThread()) {
            def imageData = QP.getCurrentImageData()
            if (imageData != null && !imageData.is(qupath.getImageData()))
                throw new IllegalStateException("Press Run, not 'Run for project': one slide is reviewed at a time.")
            def done = new FutureTask({ inWindow(action) }, null)
            Platform.runLater(done)
            done.get() // where a script ends, QuPath takes the slide it began on for changed, and would ask to save it
            return
        }
        try {
            action()
        } catch (Refusal refusal) {
            tell(refusal.message)
        } catch (Exception error) {
            logger.error('qpannot: ' + error.message, error)
            tell("That did not work: ${error.message ?: error.class.simpleName}. View > Show log tells more.")
        }
    }

    /** What stays until QuPath is closed: each run of a script has classes of its own. */
    private kept(String key, Closure first) {
        return qupath.stage.properties.computeIfAbsent(key) { first() }
    }

    private void tell(String text) {
        logger.info(text)
        alert(Alert.AlertType.INFORMATION, text).showAndWait()
    }

    private boolean confirm(String text) {
        def answer = alert(Alert.AlertType.CONFIRMATION, text).showAndWait()
        return answer.isPresent() && answer.get() == ButtonType.OK
    }

    private Alert alert(Alert.AlertType type, String text) {
        def alert = new Alert(type, text)
        alert.title = TITLE
        alert.headerText = null
        alert.initOwner(qupath.stage)
        return alert
    }

    /** Why something is not done, in words for the person. */
    private static class Refusal extends RuntimeException {
        Refusal(String message) {
            super(message)
        }
    }
}
