// Shows over the open slide what the network takes it for, or hides that.
// One of qpannot's scripts: what they share lies in the project's folder, qpannot/scripts.

def project = qupath.lib.scripting.QP.getProject()
assert project != null : "Open a project first: this script works on a project's slides"
def folder = new File(qupath.lib.projects.Projects.getBaseDirectory(project), 'qpannot/scripts')
assert folder.isDirectory() : "$folder is missing. To put it back: qpannot scripts install"

def loader = new GroovyClassLoader(getClass().getClassLoader())
loader.addClasspath(folder.path)
loader.loadClass('ReviewWindow').newInstance().toggleHeatmap()
